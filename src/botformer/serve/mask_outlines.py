"""Masks -> the polygons that a page draws and a person corrects: few points, at most a pixel beside the mask."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from botformer.data.detection.label_studio_writer import mask_polygons
from botformer.rle import decode_window

TOLERANCE_PX = 0.75
"""A point may lie so far beside the outline that goes from pixel to pixel."""


def outlines(mask: Mapping[str, Any]) -> list[list[list[float]]]:
    """Outer contours of a run-length encoded mask: [[x, y], ...] each, in pixels of the image."""
    window, (top, left) = decode_window(mask)
    if not window.any():
        return []
    found = []
    for polygon in mask_polygons(window):
        points = simplified(polygon, TOLERANCE_PX) + (left, top)
        found.append([[round(x, 1), round(y, 1)] for x, y in points.tolist()])
    return found


def simplified(polygon: np.ndarray, tolerance: float) -> np.ndarray:
    """A closed polygon (n, 2) without points that are not needed (Douglas and Peucker 1973); at least 3 are kept."""
    # It has no ends: it is cut at its first point and at the one that is furthest from that.
    furthest = int(np.argmax(np.hypot(*(polygon - polygon[0]).T)))
    closed = np.concatenate([polygon, polygon[:1]])
    kept = np.zeros(len(closed), dtype=bool)
    kept[[0, furthest]] = True
    parts = [(0, furthest), (furthest, len(polygon))]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        place = int(np.argmax(distances))
        if distances[place] > tolerance:
            middle = first + 1 + place
            kept[middle] = True
            parts += [(first, middle), (middle, last)]
    few = polygon[kept[:-1]]
    return few if len(few) >= 3 else polygon


def _distances(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Of points from the line through two others."""
    along = end - start
    length = float(np.hypot(*along))
    away = points - start
    if not length:
        return np.hypot(*away.T)
    return np.abs(away[:, 0] * along[1] - away[:, 1] * along[0]) / length
