"""Masks relative to boxes: ground truth cut to its box, targets of a RoI, predictions pasted back."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align


def crop_masks(masks: Tensor, boxes_xyxy: Tensor, size: int) -> Tensor:
    """Masks (n, h, w) of whole images -> (n, size, size) float32 0 or 1, each stretched from its box to a square.

    A cell is set where half of what it covers is. One mask after the other: an image may hold a thousand, and as
    floats they would take four times what the caller's bytes do.
    """
    crops = [
        roi_align(mask[None, None].to(box.device, torch.float32), [box[None]], size, aligned=True)[0, 0] >= 0.5
        for mask, box in zip(masks, boxes_xyxy, strict=True)
    ]
    return torch.stack(crops).float() if crops else boxes_xyxy.new_zeros(0, size, size)


def mask_targets(crops: Tensor, boxes_xyxy: Tensor, matched_idx: Tensor, proposals_xyxy: Tensor, size: int) -> Tensor:
    """What the mask head should predict for each proposal: (k, size, size) in 0..1, averages over its cells.

    crops (n, S, S) of boxes (n, 4); `matched_idx` (k,) is the object that each of the proposals (k, 4) is matched to.
    Outside its box an object is not.
    """
    side = crops.shape[-1]
    boxes = boxes_xyxy[matched_idx]
    corner, extent = boxes[:, :2].repeat(1, 2), (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    within = (proposals_xyxy - corner) / extent * side + 1  # in cells of the crop, which gets a margin of one
    # Only the crops that are needed become a batch of images.
    used, index = torch.unique(matched_idx, return_inverse=True)
    images = F.pad(crops[used].to(within), (1, 1, 1, 1))[:, None]
    return roi_align(images, torch.cat([index[:, None].to(within), within], 1), size, aligned=True)[:, 0]


def paste_window(probability: Tensor, box_xyxy: Tensor, size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """One mask (M, M) over its box, of any type -> probabilities of the pixels it covers, and where they start.

    Returns (rows, columns) of the window within the image of `size` (height, width), and its (top, left); the window
    is empty where the box covers no pixel's middle. Between the cells' middles it is linear; around the mask it is 0.
    """
    height, width = size
    probability = probability.to(torch.promote_types(probability.dtype, torch.float32))
    x1, y1, x2, y2 = box_xyxy.tolist()
    left, right = _pixels(x1, x2, width)
    top, bottom = _pixels(y1, y2, height)
    # -1..1 spans the box, as grid_sample wants it.
    rows, columns = (
        (torch.arange(*ends, dtype=probability.dtype, device=probability.device) + 0.5 - low) / max(high - low, 1e-6)
        for ends, low, high in (((top, bottom), y1, y2), ((left, right), x1, x2))
    )
    rows, columns = 2 * rows - 1, 2 * columns - 1
    if not len(rows) or not len(columns):
        return probability.new_zeros(len(rows), len(columns)), (top, left)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    return F.grid_sample(probability[None, None], grid[None], align_corners=False)[0, 0], (top, left)


def _pixels(low: float, high: float, size: int) -> tuple[int, int]:
    """First and last + 1 of the pixels whose squares the interval touches."""
    first = min(max(int(low), 0), size)
    return first, max(first, min(int(-(-high // 1)), size))
