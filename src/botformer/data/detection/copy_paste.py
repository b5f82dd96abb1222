"""Copy-paste augmentation (Ghiasi et al. 2021, the simple form): objects of another image on this one.

Masks are kept relative to boxes, whatever they were read from, so all happens on the canvas: an object's cells say
which pixels it covers, these are copied, and what they hide of other objects is taken from those.
"""

import random
from typing import Any

import numpy as np
from torch import Tensor

_LEAST_VISIBLE = 0.1
"""An object of which less than this fraction stays visible is gone."""

Target = dict[str, Any]
"""As `transforms.transform_objects` makes it, with shapes: `boxes` (n, 4), `labels` (n,), `mask_crops` (n, S, S) and
`has_mask` (n,)."""


def paste_objects(
    canvas: Tensor, target: Target, extent: tuple[int, int], source: Tensor, source_target: Target
) -> Target:
    """Copy some objects of `source` onto `canvas`, in place, and return the target of the result.

    Each object that has a mask is copied with a chance of one half, at least one, to where it lies in `source`, as far
    as the image reaches. Of what they hide the rest is kept, its box drawn around what is visible. From Python's global
    generator.

    Args:
        canvas, source: uint8 (3, size, size).
        extent: (height, width) of the image on `canvas`.
    """
    masked: list[int] = np.flatnonzero(source_target["has_mask"]).tolist()
    chosen = [index for index in masked if random.random() < 0.5] or [random.choice(masked)] if len(masked) else []
    beside = np.ones(canvas.shape[1:], dtype=bool)
    beside[: extent[0], : extent[1]] = False
    pasted: list[tuple[np.ndarray, np.ndarray, int]] = []
    covered = np.zeros_like(beside)
    for index in chosen:
        part = _visible(source_target["boxes"][index], source_target["mask_crops"][index], beside)
        if part is not None:
            box, crop = part
            # It may reach beyond the image by less than half a pixel, where its mask covers no pixel's middle.
            pasted.append((np.minimum(box, [extent[1], extent[0]] * 2), crop, index))
            rows, columns, mask = _pixels(box, crop, covered.shape)
            covered[rows, columns] |= mask
    if not covered.any():
        return target
    pixels = canvas.permute(1, 2, 0).numpy()
    pixels[covered] = source.permute(1, 2, 0).numpy()[covered]
    kept: list[tuple[np.ndarray, np.ndarray, int]] = []
    for index, (box, crop) in enumerate(zip(target["boxes"], target["mask_crops"], strict=True)):
        known = target["has_mask"][index]
        part = _visible(box, crop if known else np.ones_like(crop), covered)
        if part is not None:  # of an object without a mask nobody knows what is visible: its box stays
            kept.append((*part, index) if known else (box, crop, index))
    size = target["mask_crops"].shape[1:]
    return {
        "boxes": np.array([box for box, *_ in kept + pasted], dtype=np.float32).reshape(-1, 4),
        "labels": np.concatenate([target["labels"][_places(kept)], source_target["labels"][_places(pasted)]]),
        "mask_crops": np.array([crop for _, crop, _ in kept + pasted], dtype=np.uint8).reshape(-1, *size),
        "has_mask": np.concatenate([target["has_mask"][_places(kept)], np.ones(len(pasted), dtype=bool)]),
    }


def _places(objects: list[tuple[np.ndarray, np.ndarray, int]]) -> list[int]:
    return [index for *_, index in objects]


def _visible(box_xyxy: np.ndarray, crop: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """What is left of an object, as a box (4,) and its crop (S, S), where pixels of the canvas (size, size) are hidden;
    None where too little is."""
    rows, columns, mask = _pixels(box_xyxy, crop, hidden.shape)
    left = mask & ~hidden[rows, columns]
    if left.sum() == mask.sum() > 0:
        return box_xyxy, crop
    if left.sum() < max(_LEAST_VISIBLE * mask.sum(), 1):
        return None
    seen_rows, seen_columns = np.flatnonzero(left.any(1)), np.flatnonzero(left.any(0))
    corner = np.array([columns.start + seen_columns[0], rows.start + seen_rows[0]])
    opposite = np.array([columns.start + seen_columns[-1] + 1, rows.start + seen_rows[-1] + 1])
    box = np.concatenate([np.maximum(corner, box_xyxy[:2]), np.minimum(opposite, box_xyxy[2:])])
    # Each cell of the new crop is what lies at its middle.
    side = len(crop)
    x, y = ((low + (np.arange(side) + 0.5) / side * (high - low)) for low, high in zip(box[:2], box[2:], strict=True))
    x1, y1, x2, y2 = box_xyxy.tolist()
    cells = crop[np.ix_(_cells(y, y1, y2, side), _cells(x, x1, x2, side))]
    shown = ~hidden[np.ix_(y.astype(np.int64), x.astype(np.int64))]
    return (box, cells * shown) if (cells * shown).any() else None


def _pixels(box_xyxy: np.ndarray, crop: np.ndarray, size: tuple[int, ...]) -> tuple[slice, slice, np.ndarray]:
    """Rows and columns of the canvas that an object's box touches, and which of these pixels the object covers."""
    x1, y1, x2, y2 = box_xyxy.tolist()
    rows = slice(max(int(y1), 0), min(int(np.ceil(y2)), size[0]))
    columns = slice(max(int(x1), 0), min(int(np.ceil(x2)), size[1]))
    y, x = (np.arange(part.start, part.stop) + 0.5 for part in (rows, columns))
    mask = crop[np.ix_(_cells(y, y1, y2, len(crop)), _cells(x, x1, x2, len(crop)))] > 0
    # The middles of the outermost pixels may lie beside the box.
    return rows, columns, mask & ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))


def _cells(positions: np.ndarray, low: float, high: float, side: int) -> np.ndarray:
    """The cell of a crop from `low` to `high` in which each position lies; the nearest one for those beside it."""
    return np.clip((positions - low) / (high - low) * side, 0, side - 1).astype(np.int64)
