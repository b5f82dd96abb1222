"""Shapes as people draw them in annotation programs -> the polygons and boxes of a COCO file."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from botformer.data.image_io import BadImage, upright_size

_CORNERS = 64
"""Of the polygon that stands for an ellipse: its area is smaller by 0.2 %."""


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> list[float]:
    """x, y, x, y, ... of a polygon; touches the ellipse's box on all four sides."""
    turns = [2 * math.pi * corner / _CORNERS for corner in range(_CORNERS)]
    return [value for turn in turns for value in (x + radius_x * math.cos(turn), y + radius_y * math.sin(turn))]


def rectangle(points: Sequence[Sequence[float]]) -> list[float]:
    """The polygon around two opposite corners, in any order."""
    (x1, x2), (y1, y2) = _ends(point[0] for point in points), _ends(point[1] for point in points)
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def box_around(polygons: Iterable[Sequence[float]]) -> list[float]:
    """x, y, width, height."""
    polygons = list(polygons)
    x1, x2 = _ends(x for polygon in polygons for x in polygon[0::2])
    y1, y2 = _ends(y for polygon in polygons for y in polygon[1::2])
    return [x1, y1, x2 - x1, y2 - y1]


def image_record(image_id: int, folder: Path, name: str) -> dict[str, Any]:
    """Of a COCO file, with the size of the image itself. None where there is none: its reader will say why."""
    try:
        width, height = upright_size(folder / name)
    except BadImage:
        return {"id": image_id, "file_name": name}
    return {"id": image_id, "file_name": name, "width": width, "height": height}


def categories_by_name(names: Iterable[str]) -> dict[str, int]:
    """Name -> category id, from 1 in the order of the names, for formats without ids."""
    return {name: number for number, name in enumerate(sorted(set(names)), 1)}


def as_categories(ids: dict[str, int]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for name, number in ids.items()]


def _ends(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)
