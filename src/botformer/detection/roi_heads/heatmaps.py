"""Key points as cells of heat maps over a box, and back."""

import torch
from torch import Tensor


def keypoints_to_cells(keypoints: Tensor, boxes_xyxy: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Key points (k, K, 3) x, y, v in pixels -> the cell each lies in, of `side * side` row by row, over boxes (k, 4).

    Returns cells (k, K) int64, and bool (k, K): the point is visible (v > 0) and lies in its box; where it is False,
    the cell is 0. The right and bottom edges of a box belong to its last cells.
    """
    corner, opposite = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    points = keypoints[..., :2]
    cells = ((points - corner) * (side / (opposite - corner))).floor().long()
    cells = torch.where(points == opposite, side - 1, cells)
    usable = ((cells >= 0) & (cells < side)).all(-1) & (keypoints[..., 2] > 0)
    return (cells[..., 1] * side + cells[..., 0]) * usable, usable


def heatmaps_to_keypoints(logits: Tensor, boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (k, K, S, S) over boxes (k, 4) -> points (k, K, 2) x, y in pixels, and the logit of their cells (k, K).

    A point lies at the middle of the hottest cell, moved along x and along y to the top of the parabola through that
    cell and its two neighbours: at most half a cell, and not at the border.

    torchvision resamples each map to the pixels of its box and takes the hottest pixel. That misses a narrow peak
    where a box has fewer pixels than its map has cells, is up to a cell off where it has a few more, and takes a loop
    over boxes that waits for the device. Where maps are smooth, the two agree (tests/detection/roi_heads).
    """
    side = logits.shape[-1]
    score, cell = logits.flatten(2).max(2)
    row, column = cell // side, cell % side
    index = torch.stack([column, row], -1)
    # The values before and behind the hottest cell: along x the next cells, along y the next rows.
    step = torch.tensor([1, side], device=cell.device)
    inner = (index > 0) & (index < side - 1)
    around = torch.stack([cell[..., None] - step, cell[..., None] + step], -1).clamp(0, side * side - 1)
    before, behind = logits.flatten(2).gather(2, around.flatten(2)).unflatten(2, (2, 2)).unbind(-1)
    curvature = before - 2 * score[..., None] + behind  # 0 or less, as the middle is the greatest
    shift = torch.where(inner & (curvature < 0), 0.5 * (before - behind) / curvature.clamp(max=-1e-12), 0.0)
    corner, size = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:] - boxes_xyxy[:, None, :2]
    return (index + 0.5 + shift.clamp(-0.5, 0.5)) / side * size + corner, score
