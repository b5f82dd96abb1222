"""The memory layout of heads: as in a channels_last map."""

from torch import Tensor


def empty_channels_last(like: Tensor) -> Tensor:
    """An uninitialised (B, N, H, W, D) tensor, stored as (B, H, W, N, D): the heads of a channels_last map.

    No view: what an operator returns as one may not be changed in place, as by the activation of a folded block.
    """
    B, N, H, W, D = like.shape
    return like.new_empty_strided((B, N, H, W, D), (H * W * N * D, D, W * N * D, N * D, 1))
