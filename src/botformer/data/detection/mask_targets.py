"""COCO's two ways to write a shape, polygons and run lengths, -> the shape within a box, as a small square.

Images lie on pixels as squares: pixel (row, column) covers [column, column + 1) x [row, row + 1). A shape is never
laid out over its whole image.
"""

from typing import Any, TypeAlias

import numpy as np

from botformer import rle
from botformer.data.detection.polygon_area import union_area_px

Segmentation: TypeAlias = list[list[float]] | dict[str, Any]
"""Polygons [[x, y, x, y, ...], ...] in pixels, which together are the shape; or run lengths {"size": [height, width],
"counts": numbers or a compressed string}, column by column, starting outside."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


def crop_mask(segmentation: Segmentation, box_xyxy: Box, size: int) -> np.ndarray:
    """uint8 (size, size), 0 or 1: the shape within the box, stretched to a square.

    Run lengths: a cell is set where the shape covers half of it. Polygons: where it covers the cell's middle (even-odd
    rule within a polygon, as COCO fills them).
    """
    if isinstance(segmentation, dict):
        return _crop_runs(segmentation, box_xyxy, size)
    return fill_polygons(segmentation, box_xyxy, (size, size)).astype(np.uint8)


def fill_polygons(polygons: list[list[float]], box_xyxy: Box, size: tuple[int, int]) -> np.ndarray:
    """bool (rows, columns): where the polygons within the box, stretched to `size`, cover a cell's middle."""
    crop = np.zeros(size, dtype=bool)
    for polygon in polygons:
        crop |= _fill_polygon(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), box_xyxy, size)
    return crop


def area_px(segmentation: Segmentation, width: int, height: int) -> float:
    """Pixels of run lengths; of polygons the area of their union within the image."""
    if isinstance(segmentation, dict):
        return float(rle.decode_counts(segmentation["counts"])[1::2].sum())
    return union_area_px(segmentation, width, height)


def shape_box(segmentation: Segmentation) -> Box:
    """The smallest box around a shape, which may reach beyond the image; run lengths must cover a pixel."""
    if isinstance(segmentation, dict):
        return _box_of_runs(segmentation)
    corners = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation])
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    return x1, y1, x2, y2


def _box_of_runs(runs: dict[str, Any]) -> Box:
    height = runs["size"][0]
    ends = np.cumsum(rle.decode_counts(runs["counts"]))
    first, last = ends[:-1:2], ends[1::2] - 1  # of the pixels that are covered
    first, last = first[last >= first], last[last >= first]
    left, right = int(first.min()) // height, int(last.max()) // height
    if (first // height != last // height).any():  # a run that goes on in the next column touches both borders
        return float(left), 0.0, right + 1.0, float(height)
    return float(left), float((first % height).min()), right + 1.0, float((last % height).max()) + 1.0


def _crop_runs(runs: dict[str, Any], box_xyxy: Box, size: int) -> np.ndarray:
    height, width = runs["size"]
    x1, y1, x2, y2 = box_xyxy
    left, right = max(0, int(np.floor(x1))), min(width, int(np.ceil(x2)))
    top, bottom = max(0, int(np.floor(y1))), min(height, int(np.ceil(y2)))
    # Only the columns of the box: the runs cut to them, then laid out.
    ends = np.clip(np.cumsum(rle.decode_counts(runs["counts"])), left * height, right * height)
    lengths = np.diff(ends, prepend=left * height)
    columns = np.repeat(np.arange(len(lengths)) % 2, lengths).reshape(right - left, height)
    window = columns[:, top:bottom].T.astype(np.float32)
    # The fraction of a cell that is covered: along rows and along columns one after the other.
    covered = _overlaps(y1, y2, size, top, bottom) @ window @ _overlaps(x1, x2, size, left, right).T
    return (covered >= 0.5 - 1e-5).astype(np.uint8)


def _overlaps(low: float, high: float, cells: int, first: int, last: int) -> np.ndarray:
    """float32 (cells, last - first): which fraction of each of the cells between low and high each pixel makes up."""
    edges = low + (high - low) / cells * np.arange(cells + 1)
    before = np.clip(edges[:, None] - np.arange(first, last), 0.0, 1.0)
    return (np.diff(before, axis=0) * (cells / (high - low))).astype(np.float32)


def _fill_polygon(points: np.ndarray, box_xyxy: Box, size: tuple[int, int]) -> np.ndarray:
    """points (n, 2) -> bool (rows, columns)."""
    (x1, y1, x2, y2), (rows, columns) = box_xyxy, size
    u, v = (points[:, 0] - x1) / (x2 - x1) * columns, (points[:, 1] - y1) / (y2 - y1) * rows  # in cells
    next_u, next_v = np.roll(u, -1), np.roll(v, -1)
    middles = np.arange(rows) + 0.5
    edge, row = np.nonzero((v[:, None] <= middles) != (next_v[:, None] <= middles))  # edges that cross a row's middle
    crossing = u[edge] + (middles[row] - v[edge]) / (next_v[edge] - v[edge]) * (next_u[edge] - u[edge])
    # Each crossing turns inside to outside, or back, from the first middle that does not lie left of it.
    column = np.clip(np.ceil(crossing - 0.5), 0, columns).astype(np.int64)
    turns = np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1)).reshape(rows, columns + 1)
    return np.cumsum(turns, axis=1)[:, :columns] % 2 == 1
