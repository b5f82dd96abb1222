"""Anchors from the sizes and proportions of a training set's boxes, by rules that hold for any set."""

from collections.abc import Sequence

import numpy as np

_APART = 1.25
"""Least ratio of the anchors of neighbouring levels."""
_SCALES = (0.75, 1.0, 1.33)
"""Objects come larger and smaller than they are, by the scale jitter."""
_CELLS = 2.0
"""An anchor is at least so many strides of its level wide: narrower ones leave gaps between cells."""
_MIDDLE, _MOST_SIZES = (0.05, 0.95), 10_000
_RATIOS_APART, _STEEPEST = 1.5, 5.0


def levels_in_use(sizes_px: np.ndarray, strides: Sequence[int]) -> int:
    """On how many of the levels, from the finest, an anchor of two strides still fits large objects; at least 1."""
    return max(1, sum(_CELLS * stride <= np.quantile(sizes_px, 0.95) for stride in strides))


def anchor_sizes(sizes_px: np.ndarray, strides: Sequence[int]) -> tuple[float, ...]:
    """Sides of the square anchors in pixels of the canvas, one per level, rising.

    The centres of a k-means of the objects' sizes (logarithms, in one dimension), one per level in use; coarser levels,
    on which no object is large enough for a cell, get larger ones that little matches.

    Args:
        sizes_px: (objects,) roots of the areas of the boxes, on the canvas.
        strides: of the levels in pixels, finest first.
    """
    used = levels_in_use(sizes_px, strides)
    # Without the tails, which would draw anchors to where little is; of many objects as many quantiles.
    sizes_px = np.quantile(sizes_px, np.linspace(*_MIDDLE, min(len(sizes_px), _MOST_SIZES)))
    logs = np.log(np.outer(_SCALES, sizes_px)).reshape(-1)
    centres = np.exp(_k_means(logs, used)).tolist()
    sizes: list[float] = []
    for place, stride in enumerate(strides):
        least = max(_CELLS * stride, sizes[-1] * _APART if sizes else 0.0)
        sizes.append(max(least, centres[place]) if place < used else least)
    return tuple(round(size, 1) for size in sizes)


def anchor_ratios(ratios: np.ndarray, turned: bool) -> tuple[float, ...]:
    """Three heights to widths: the median and the borders of the middle 80 %, at least half as much again apart.

    Args:
        ratios: (objects,) height to width of the boxes.
        turned: images are turned by quarters, so that a tall object is as often a wide one.
    """
    low, middle, high = np.log(np.quantile(ratios, (0.1, 0.5, 0.9)).clip(1 / _STEEPEST, _STEEPEST))
    if turned:
        middle, high = 0.0, max(abs(low), abs(high))
        low = -high
    apart = np.log(_RATIOS_APART)
    return tuple(
        round(float(np.exp(value)), 2) for value in (middle, max(high, middle + apart), min(low, middle - apart))
    )


def _k_means(values: np.ndarray, count: int) -> np.ndarray:
    """(count,) centres in rising order. Deterministic: it starts from quantiles; an empty cluster keeps its centre."""
    centres = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(100):
        nearest = np.abs(values[:, None] - centres).argmin(1)
        sums, counts = np.bincount(nearest, values, count), np.bincount(nearest, minlength=count)
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
        if np.allclose(moved, centres, atol=1e-4):
            break
        centres = moved
    return np.sort(centres)
