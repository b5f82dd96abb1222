"""The area that polygons cover together within their image, exactly.

The image is cut into slabs at every height where something changes: corners, crossings of edges, the image's borders.
Within a slab no two edges cross, so the covered length changes linearly with the height, and the length at its middle
times its height is its area.
"""

from collections.abc import Sequence

import numpy as np


def union_area_px(polygons: Sequence[Sequence[float]], width: int, height: int) -> float:
    """Area in pixels of the union of polygons [x, y, x, y, ...] within an image.

    Each polygon is filled by the even-odd rule, as COCO fills them, whichever way it turns; what several cover counts
    once, what lies beside the image not at all.
    """
    polygon, start, end = _edges(polygons)
    levels = [start[:, 1], _crossing_heights(start, end), np.array([0.0, height])]
    for border in (0.0, float(width)):
        levels.append(_heights_at(border, start, end))
    heights = np.unique(np.clip(np.concatenate(levels), 0.0, height))
    middles = (heights[1:] + heights[:-1]) / 2
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    edge, slab = _pairs(np.searchsorted(middles, low), np.searchsorted(middles, high))
    along = (middles[slab] - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + along * (end[edge, 0] - start[edge, 0])
    # Along a middle, a polygon is entered and left in turn ...
    order = np.lexsort((x, polygon[edge], slab))
    x, slab = np.clip(x[order], 0.0, width), slab[order]
    turn = np.where(np.arange(len(x)) % 2 == 0, 1, -1)
    # ... and covered is what lies in one polygon or more.
    order = np.lexsort((x, slab))
    x, slab, depth = x[order], slab[order], np.cumsum(turn[order])
    covered = np.diff(x, append=0.0) * (depth > 0)
    return float((covered * np.diff(heights)[slab]).sum())


def _edges(polygons: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which polygon each edge belongs to (n,), where it starts (n, 2) and where it ends (n, 2); level ones left out."""
    corners = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons]
    polygon = np.repeat(np.arange(len(corners)), list(map(len, corners)))
    start = np.concatenate(corners)
    end = np.concatenate([np.roll(each, -1, axis=0) for each in corners])
    slanted = start[:, 1] != end[:, 1]
    return polygon[slanted], start[slanted], end[slanted]


def _crossing_heights(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """y of the points in which two edges cross."""
    low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
    order = np.argsort(low, kind="stable")
    start, end, low, high = start[order], end[order], low[order], high[order]
    # Only edges that share heights can cross: each with those that begin after it, and before it ends.
    one, other = _pairs(np.arange(1, len(low) + 1), np.maximum(np.searchsorted(low, high), np.arange(1, len(low) + 1)))
    along, across, apart = end[one] - start[one], end[other] - start[other], start[other] - start[one]
    turn = _cross(along, across)
    with np.errstate(divide="ignore", invalid="ignore"):
        s, t = _cross(apart, across) / turn, _cross(apart, along) / turn
        cross = (turn != 0) & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
        return (start[one, 1] + s * along[:, 1])[cross]


def _heights_at(x: float, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """y of the points in which edges cross a vertical line."""
    passes = (start[:, 0] < x) != (end[:, 0] < x)
    start, end = start[passes], end[passes]
    return start[:, 1] + (x - start[:, 0]) / (end[:, 0] - start[:, 0]) * (end[:, 1] - start[:, 1])


def _pairs(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(i, j) for every i and every j from first[i] up to last[i], that one excluded."""
    counts = last - first
    left = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
    return left, np.repeat(first, counts) + within


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
