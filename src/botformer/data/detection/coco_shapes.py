"""Boxes and shapes as COCO files have them in the world -> checked ones.

A bad shape does not cost a good box, nor a bad box a good shape: where one of them can be used, the object stays.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from botformer import rle
from botformer.data.detection.mask_targets import Box, Segmentation, area_px, shape_box

LONGEST_SIDE_PX = 1_000_000
"""Of an image: beyond it a size is taken for a mistake."""
_DEEPEST = 5
"""Lists in lists; COCO's own polygons have two."""


class Shape(NamedTuple):
    """An object's box and shape."""

    box_xywh: Box
    inside_xyxy: Box
    """The box, cut to the image."""
    segmentation: Segmentation | None
    area_px: float
    mended: str
    """What was left out or replaced, and why; empty where nothing was."""


class BadRecord(Exception):  # noqa: N818 - what is bad is the record
    """It makes no sense."""


class NothingThere(Exception):  # noqa: N818 - as above
    """It makes sense, and no pixel."""


def read_shape(record: dict[str, Any], width: int, height: int) -> Shape:
    """The box and the shape of an annotation. Raises BadRecord or NothingThere where there is neither."""
    segmentation, lost = _segmentation(record.get("segmentation"), width, height)
    area = number(record.get("area"))
    if segmentation is not None and not (area and area > 0):
        area = area_px(segmentation, width, height)
        if not area:
            segmentation, lost = None, "shape left out: it covers nothing of the image"
    try:
        box = _box(record.get("bbox"))
        inside = _inside(box, width, height)
    except (BadRecord, NothingThere) as error:
        if segmentation is None:
            if lost:
                raise type(error)(f"{error}; {lost}") from None
            raise
        x1, y1, x2, y2 = shape_box(segmentation)
        box = (x1, y1, x2 - x1, y2 - y1)
        inside = _inside(box, width, height)
        if record.get("bbox") not in (None, []):
            lost = "; ".join(filter(None, (f"{error}: box taken from the shape", lost)))
    if segmentation is None and not (area and area > 0):
        area = (inside[2] - inside[0]) * (inside[3] - inside[1])
    assert area is not None
    return Shape(box, inside, segmentation, float(area), lost)


def number(value: Any) -> float | None:
    """A finite number no larger than a coordinate can be (JSON's integers have no end), also one written as text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12  # NaN is not
    return value if good else None


def integer(value: Any) -> int | None:
    """An integer, also one written as 7.0 or as text."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 100 else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def as_id(value: int | float | str) -> int | str:
    """What results call an id that `id_text` accepts: a name as it is, a number as an integer."""
    return value if isinstance(value, str) else int(value)


def id_text(value: Any) -> str:
    """Of an id, so that 7, 7.0 and "7" are one; empty where it is none."""
    if isinstance(value, str):
        return value
    read = integer(value)
    return "" if read is None else str(read)


def _box(value: Any) -> Box:
    sides = list(map(number, value)) if isinstance(value, list) else []
    if len(sides) != 4 or None in sides:
        raise BadRecord(f"bbox is {str(value)[:100]}, not four finite numbers (x, y, width, height)")
    x, y, w, h = (float(side) for side in sides if side is not None)
    return x, y, w, h


def _inside(box: Box, width: int, height: int) -> Box:
    x, y, w, h = box
    if w <= 0 or h <= 0:
        raise NothingThere(f"box {list(box)} has no area (x, y, width, height)")
    inside = (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise NothingThere(f"box {list(box)} lies outside the image of {width}x{height} pixels")
    return inside


def _segmentation(value: Any, width: int, height: int) -> tuple[Segmentation | None, str]:
    """The shape, None where there is none that can be used, and what was left out."""
    if value is None or value == [] or value == {} or value == "":
        return None, ""
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        (value,) = value  # run lengths, with a list around them
    if isinstance(value, dict):
        try:
            return _runs(value, width, height), ""
        except ValueError as error:
            return None, f"shape left out: {error}"
    if not isinstance(value, list):
        return None, f"shape left out: segmentation is a {type(value).__name__}, neither polygons nor run lengths"
    found = list(_polygons(value))
    good = [polygon for polygon in found if polygon is not None]
    if not good:
        return None, "shape left out: segmentation has no polygon, a list x, y, x, y, ... of three points or more"
    lost = len(found) - len(good)
    return good, f"{lost} of {len(found)} polygons left out: fewer than three points, or not numbers" if lost else ""


def _polygons(value: list[Any], depth: int = 1) -> Iterator[list[float] | None]:
    """Each polygon, however deep it is nested; None for what is none.

    x, y, x, y, ... may stand alone or in lists, and a polygon may be a list of its points [x, y].
    """
    if not value or depth > _DEEPEST:
        yield None
    elif not any(isinstance(part, list) for part in value):
        yield _polygon(value)
    elif len(value) >= 3 and all(
        isinstance(part, list) and len(part) == 2 and None not in map(number, part) for part in value
    ):
        yield _polygon([side for point in value for side in point])
    else:
        for part in value:
            if isinstance(part, list):
                yield from _polygons(part, depth + 1)
            else:
                yield None


def _polygon(sides: list[Any]) -> list[float] | None:
    if _are_numbers(sides):
        return sides if len(sides) >= 6 and len(sides) % 2 == 0 else None
    read = list(map(number, sides))
    good = [side for side in read if side is not None]
    return good if len(good) == len(read) >= 6 and len(read) % 2 == 0 else None


def _are_numbers(sides: list[Any]) -> bool:
    """As `number` would say of each, for the most usual case, ten times as fast: a large file has tens of millions."""
    if not set(map(type, sides)) <= {int, float} or not -1e12 < min(sides) <= max(sides) < 1e12:
        return False
    total = sum(sides)
    return total == total  # NaN is not


def _runs(value: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """Raises ValueError."""
    size, counts = value.get("size", [height, width]), value.get("counts")
    if not isinstance(size, list) or list(map(integer, size)) != [height, width]:
        raise ValueError(
            f"run lengths of size {str(size)[:100]} do not fit the image: {[height, width]} was expected "
            "(height, width)"
        )
    if isinstance(counts, list):
        numbers = list(map(integer, counts))
        if None in numbers:
            raise ValueError("run lengths with counts that are not integers")
        # Beyond the image they are wrong anyhow, and Python's integers have no end.
        counts = [min(max(each, -1), width * height + 1) for each in numbers if each is not None]
    elif not isinstance(counts, str):
        raise ValueError(f"run lengths with a {type(counts).__name__} as counts; expected are a string or numbers")
    try:
        lengths = rle.decode_counts(counts)
    except ValueError as error:  # that of characters which are not ASCII is one, too
        raise ValueError(f"counts of the run lengths cannot be read: the string {error}") from None
    if len(lengths) and lengths.min() < 0:
        raise ValueError("run lengths have a negative count")
    total = math.fsum(lengths)
    if total != width * height:
        raise ValueError(f"run lengths add up to {total:.0f} pixels, the image has {width * height}")
    if not np.any(lengths[1::2]):
        raise ValueError("run lengths that cover nothing")
    return {"size": [height, width], "counts": counts}
