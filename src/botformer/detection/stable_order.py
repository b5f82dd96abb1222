"""The best first, and of equal scores the one that comes first: an order that every runtime can repeat.

`torch.topk` promises no order among equal scores, and a network that was trained for minutes gives many boxes exactly
the same: each runtime would start from other proposals.
"""

import torch
from torch import Tensor
from torchvision.ops import batched_nms


def stable_topk(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of scores (..., n) and their places, both (..., count): `sort(descending=True, stable=True)`
    cut off, in a fraction of its time where n is large."""
    least = scores.topk(count).values[..., -1:]
    above, equal = scores > least, scores == least
    # Of those that equal the last, the first ones fill up what is missing.
    chosen = above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    first_high = torch.arange(scores.shape[-1], 0, -1, dtype=torch.int32, device=scores.device)
    places = (chosen * first_high).topk(count).indices
    best, order = scores.gather(-1, places).sort(descending=True, stable=True)
    return best, places.gather(-1, order)


def stable_nms(boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """torchvision's `batched_nms`, which sorts what is left of many boxes in no order among equal scores.

    In float64: it moves groups apart, the 20,000th by 20 million pixels, where a float32 knows no fraction of one.
    """
    kept = batched_nms(boxes_xyxy.double(), scores.double(), groups, iou).sort().values
    return kept[scores[kept].sort(descending=True, stable=True).indices]
