"""How heads lie in memory."""

from torch import Tensor


def empty_channels_last(like: Tensor) -> Tensor:
    """An empty (B, N, H, W, D) tensor that lies in memory as (B, H, W, N, D): the heads of a channels_last map."""
    B, N, H, W, D = like.shape
    return like.new_empty(B, H, W, N, D).permute(0, 3, 1, 2, 4)
