"""The memory layout of heads: views of a channels_last map."""

from torch import Tensor


def empty_channels_last(like: Tensor) -> Tensor:
    """An uninitialised (B, N, H, W, D) tensor, stored as (B, H, W, N, D): the heads of a channels_last map."""
    B, N, H, W, D = like.shape
    return like.new_empty(B, H, W, N, D).permute(0, 3, 1, 2, 4)
