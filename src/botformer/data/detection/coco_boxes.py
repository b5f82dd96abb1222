"""Whether the boxes of a COCO file are what COCO calls one: x, y, width, height in pixels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botformer.data.detection.coco_shapes import id_text, number
from botformer.errors import InputError

_LOOKED_AT = 1000
"""Annotations, spread over the file: what is written otherwise is so everywhere."""
_NEAR_PX = 2.0
_FEWEST = 10
"""Boxes without shapes that tell anything."""


def demand_coco_boxes(annotations: Sequence[Any], images: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raises InputError where boxes are corners (x1, y1, x2, y2), as their shapes or their images show, or fractions
    of the image: read as COCO's, they would be other boxes."""
    sizes = {id_text(image.get("id")): (number(image.get("width")), number(image.get("height"))) for image in images}
    some = annotations[:: -(-len(annotations) // _LOOKED_AT) or 1]
    boxes = [
        (box, record)
        for record in some
        if isinstance(record, dict) and (box := _four(record.get("bbox"))) and min(box[2:]) > 0
    ]
    if boxes and all(0 <= side <= 1 for box, _ in boxes for side in box) and any(max(box) < 1 for box, _ in boxes):
        raise InputError(
            f"{where}: its boxes are fractions of the image, such as {boxes[0][0]}; COCO's are x, y, width, height in "
            "pixels, from the upper left corner: multiply them with width and height of their image"
        )
    shaped = [(box, ends) for box, record in boxes if (ends := _ends(record.get("segmentation")))]
    as_corners = [box for box, ends in shaped if _near(box, ends) and not _near(_corners(box), ends)]
    as_coco = [box for box, ends in shaped if _near(_corners(box), ends) and not _near(box, ends)]
    if len(as_corners) > len(as_coco):
        raise _are_corners(where, f"{len(as_corners)} of {len(shaped)} end where their shapes do", as_corners[0])
    placed = [
        (box, width, height)
        for box, record in boxes
        for width, height in [sizes.get(id_text(record.get("image_id")), (None, None))]
        if width is not None and height is not None
    ]
    beyond = [box for box, width, height in placed if box[0] + box[2] > width + 1 or box[1] + box[3] > height + 1]
    corners = all(x1 < x2 <= width + 1 and y1 < y2 <= height + 1 for (x1, y1, x2, y2), width, height in placed)
    if not as_coco and corners and len(placed) >= _FEWEST and 2 * len(beyond) >= len(placed):
        what = f"as x, y, width, height {len(beyond)} of {len(placed)} would reach beyond their image"
        raise _are_corners(where, what, beyond[0])


def _are_corners(where: str, why: str, box: Sequence[float]) -> InputError:
    return InputError(
        f"{where}: its boxes are corners (x1, y1, x2, y2), such as {list(box)}: {why}; COCO's are x, y, width, height: "
        "[x1, y1, x2 - x1, y2 - y1]"
    )


def _four(box: Any) -> list[float]:
    """Empty where it is no box."""
    sides = [number(side) for side in box] if isinstance(box, list) and len(box) == 4 else []
    return [side for side in sides if side is not None] if None not in sides else []


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _near(corners: Sequence[float], ends: Sequence[float]) -> bool:
    return all(abs(a - b) <= _NEAR_PX for a, b in zip(corners, ends, strict=True))


def _ends(polygons: Any) -> list[float]:
    """x1, y1, x2, y2 of COCO's own polygons; empty where these are none."""
    sides = list(_numbers(polygons))
    return [min(sides[0::2]), min(sides[1::2]), max(sides[0::2]), max(sides[1::2])] if len(sides) >= 6 else []


def _numbers(polygons: Any) -> Iterator[float]:
    for polygon in polygons if isinstance(polygons, list) else ():
        sides = [number(side) for side in polygon] if isinstance(polygon, list) else []
        if len(sides) % 2 == 0 and None not in sides:
            yield from (side for side in sides if side is not None)
