"""Shapes as people draw them in annotation programs -> the polygons and boxes of a COCO file."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from botformer import rle
from botformer.data.detection.coco_shapes import LONGEST_SIDE_PX, number
from botformer.data.detection.dataset import Problem
from botformer.data.detection.exported_text import log_left_out
from botformer.data.image_io import BadImage, read_header, upright_size
from botformer.read_file import open_file

_BEYOND = 1.1
"""Times the side of an image: people draw a little over its border, but not so far."""
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


def coordinate(value: Any) -> float:
    """As `coco_shapes.number`; what is none raises ValueError."""
    found = number(value)
    if found is None:
        raise ValueError(f"{value!r:.40} is not a finite number below 1e12")
    return found


def box_around(polygons: Iterable[Sequence[float]]) -> list[float]:
    """x, y, width, height."""
    polygons = list(polygons)
    x1, x2 = _ends(x for polygon in polygons for x in polygon[0::2])
    y1, y2 = _ends(y for polygon in polygons for y in polygon[1::2])
    return [x1, y1, x2 - x1, y2 - y1]


def mask_annotation(whole: np.ndarray) -> dict[str, Any]:
    """Box and shape of a bool mask (height, width), as large as its image. Raises ValueError where it is empty."""
    rows, columns = np.flatnonzero(whole.any(1)), np.flatnonzero(whole.any(0))
    if not len(rows):
        raise ValueError("a mask without a pixel")
    top, bottom, left, right = (int(each) for each in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    runs = rle.encode_window(whole[top:bottom, left:right], (top, left), (whole.shape[0], whole.shape[1]))
    return {"bbox": [left, top, right - left, bottom - top], "segmentation": runs, "iscrowd": 0}


def image_record(image_id: int, folder: Path, name: str) -> dict[str, Any]:
    """Of a COCO file, with the size of the image itself. None where there is none: its reader will say why."""
    try:
        width, height = upright_size(folder / name)
    except BadImage:
        return {"id": image_id, "file_name": name}
    return {"id": image_id, "file_name": name, "width": width, "height": height}


class Drawn(NamedTuple):
    """The objects of one image, as they were drawn."""

    image: dict[str, Any]
    """`image_record`."""
    size: tuple[int, int] | None
    """(width, height) of what was drawn on, as the file says; None: it does not."""
    annotations: list[dict[str, Any]]
    """Of a COCO file, in pixels of that size."""


def place_on_images(
    drawn: Sequence[Drawn], folder: Path, where: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Problem]]:
    """Images and annotations of a COCO file, objects of images that were resized since scaled with them; and what is
    left out, as nobody knows where it lies. Sizes that an object far beyond them disproves are of no meaning, anywhere.
    """
    images, annotations, bad, resized = [], [], [], []
    drawn = [each._replace(size=None) if max(each.size or (0,)) > LONGEST_SIDE_PX else each for each in drawn]
    disproved = [each.image["file_name"] for each in drawn if _is_disproved(each)]
    log_left_out(where, disproved, "files have objects far beyond the size that they say: no size there is believed")
    for image, size, objects in drawn:
        try:
            factors = (1.0, 1.0) if disproved else _scale_to_image(size, image, folder)
        except ValueError as error:
            bad.append(Problem(image["id"], image["file_name"], None, str(error), len(objects)))
            continue
        images.append(image)
        if factors != (1.0, 1.0):
            resized.append(image["file_name"])
        for annotation in objects:
            try:
                annotations.append(_scaled(annotation, factors))
            except ValueError as error:
                bad.append(Problem(image["id"], image["file_name"], annotation["id"], str(error)))
    log_left_out(where, resized, "images were resized after they were annotated: their objects are scaled with them")
    return images, annotations, bad


def _is_disproved(drawn: Drawn) -> bool:
    """Whether its size is not that of what was drawn on, which the image as it is would hold. Sides that are exchanged
    are another matter."""
    if drawn.size is None or "width" not in drawn.image:
        return False
    real = drawn.image["width"], drawn.image["height"]
    return drawn.size != real[::-1] and any(
        drawn.size[axis] * _BEYOND < annotation["bbox"][axis] + annotation["bbox"][axis + 2] <= real[axis] + 1
        for annotation in drawn.annotations
        for axis in (0, 1)
    )


def _scale_to_image(said: tuple[int, int] | None, record: dict[str, Any], folder: Path) -> tuple[float, float]:
    """What x and y are to be multiplied with: 1 but where the image was resized since.

    Raises ValueError where it was turned, cut or stretched.
    """
    if said is None or "width" not in record or said == (real := (record["width"], record["height"])):
        return 1.0, 1.0
    (width, height), (real_width, real_height) = said, real
    rounded = 1  # pixel, of the side that follows from the other
    if min(abs(width * real_height / height - real_width), abs(height * real_width / width - real_height)) <= rounded:
        return real_width / width, real_height / height
    if said == (real_height, real_width):
        with open_file(folder / record["file_name"]) as file:
            orientation = read_header(file, record["file_name"], math.inf).orientation
        if orientation < 5:  # the image was not turned: the sides are written the wrong way round
            return 1.0, 1.0
    raise ValueError(
        f"its annotations are of an image of {width}x{height} pixels, this one has {real_width}x{real_height}: it was "
        "turned, cut or stretched since"
    )


def _scaled(annotation: dict[str, Any], factors: tuple[float, float]) -> dict[str, Any]:
    """Its box and polygons."""
    if factors == (1.0, 1.0):
        return annotation
    shape = annotation.get("segmentation", [])
    if isinstance(shape, dict):
        raise ValueError("a mask drawn on an image of another size")
    polygons = {"segmentation": [_multiplied(each, factors) for each in shape]}
    box = {"bbox": _multiplied(annotation["bbox"], factors)}
    return annotation | box | (polygons if "segmentation" in annotation else {})


def _multiplied(sides: Sequence[float], factors: tuple[float, float]) -> list[float]:
    """Of x, y, x, y, ..., or of x, y, width, height."""
    return [side * factors[place % 2] for place, side in enumerate(sides)]


def categories_by_name(names: Iterable[str]) -> dict[str, int]:
    """Name -> category id, from 1 in the order of the names, for formats without ids."""
    return {name: number for number, name in enumerate(sorted(set(names)), 1)}


def as_categories(ids: dict[str, int]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for name, number in ids.items()]


def _ends(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)
