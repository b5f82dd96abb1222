"""Which object a box is matched to."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

BELOW_LOW, BETWEEN_THRESHOLDS = -1, -2
"""Of a box below `negative_iou` with every object, which is background; of a box between the two thresholds, which is
neither background nor object."""

_PAIRS_AT_ONCE = 2**20
"""Bounds the table of overlaps: 1,000 objects and the 260,000 anchors of 1024 px make 262 million pairs."""


def match(
    boxes_xyxy: Tensor, objects_xyxy: Tensor, positive_iou: float, negative_iou: float, allow_low_quality_matches: bool
) -> Tensor:
    """boxes (n, 4), objects (m, 4) -> (n,) int64: the index of the object each box is matched to, or
    BELOW_LOW, or BETWEEN_THRESHOLDS.

    A box is matched to the object it overlaps most, if by `positive_iou` or more; below `negative_iou` it is
    background. With `allow_low_quality_matches` the boxes that overlap an object better than all other boxes do are
    matched to their own best object in any case, so that no object stays without a box. This is what torchvision's
    Matcher does, in memory that does not grow with m.
    """
    best = boxes_xyxy.new_zeros(len(boxes_xyxy))
    matched_idx = torch.zeros(len(boxes_xyxy), dtype=torch.int64, device=boxes_xyxy.device)
    low_quality = torch.zeros_like(matched_idx, dtype=torch.bool)
    step = max(1, _PAIRS_AT_ONCE // max(1, len(boxes_xyxy)))
    for start in range(0, len(objects_xyxy), step):
        iou = box_iou(objects_xyxy[start : start + step], boxes_xyxy)
        value, index = iou.max(0)
        better = value > best
        best = torch.where(better, value, best)
        matched_idx = torch.where(better, index + start, matched_idx)
        if allow_low_quality_matches:
            nearest = iou.max(1, keepdim=True).values
            low_quality |= ((iou == nearest) & (nearest > 0)).any(0)
    background = torch.where(best < negative_iou, BELOW_LOW, BETWEEN_THRESHOLDS)
    return torch.where(low_quality | (best >= positive_iou), matched_idx, background)
