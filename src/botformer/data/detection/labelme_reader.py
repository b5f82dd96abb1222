"""LabelMe's JSON files, one per image -> the records of a COCO file."""

import base64
import binascii
import glob
import io
import logging
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.coco_shapes import integer
from botformer.data.detection.dataset import NO_IMAGE, DetectionDataset, Problem
from botformer.data.detection.drawn_shapes import (
    Drawn,
    as_categories,
    box_around,
    categories_by_name,
    coordinate,
    ellipse,
    image_record,
    mask_annotation,
    place_on_images,
    rectangle,
)
from botformer.data.detection.exported_text import log_left_out, read_text
from botformer.data.image_files import find_files, is_image
from botformer.data.image_io import BadImage, decode
from botformer.errors import InputError
from botformer.read_file import parse_json

log = logging.getLogger("botformer.data")

_TURNED = ("oriented_rectangle", "rotation")
"""Rectangles with four corners, as LabelMe and as X-AnyLabeling call them."""
_SHAPES = ("polygon", "rectangle", "circle", *_TURNED, "mask")

_IMAGES = ("images", "Images", "img", "JPEGImages")


def is_labelme(content: Any) -> bool:
    """Whether a JSON file's content is that of LabelMe."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def open_labelme(folder: Path, root: Path, max_bad_records: int = 20) -> DetectionDataset:
    """All LabelMe files below `folder`. Their images lie beside them, or in a folder of images in `root`.

    Polygons, circles and masks are shapes; a rectangle is a box without one. Shapes of one label and `group_id` are the
    parts of one object. Objects of an image that was resized since are scaled with it. Points and lines are no objects;
    they are counted. `imageData` is not read, and images without a file, which nobody has annotated, are left out.
    Categories are the labels, ids from 1 in their order.

    Raises InputError as `coco_reader.open_coco`, and where there is no object at all.
    """
    where = str(folder)
    contents, bad = _read_all(folder)
    ids = categories_by_name(
        shape["label"] for content in contents.values() for shape in _shapes(content) if _is_object(shape)
    )
    if not ids:
        raise InputError(f"{folder}: no LabelMe file there has a labelled {', '.join(_SHAPES)}")
    drawn: list[Drawn] = []
    ignored: Counter[str] = Counter()
    missing = []
    used: set[str] = set()
    for image_id, (name, content) in enumerate(contents.items(), 1):
        image = _image_of(name, content, folder, root)
        if image is None or image in used:
            file = name if image is None else f"{name} (its image {image} has another)"
            missing.append(Problem(image_id, file, None, NO_IMAGE, len(_objects(content))))
            continue
        used.add(image)
        record = image_record(image_id, root, image)
        size = record.get("height", 1), record.get("width", 1)
        annotations = []
        ignored.update(str(shape.get("shape_type")) for shape in _shapes(content) if not _is_object(shape))
        for number, shapes in enumerate(_objects(content), 1):
            try:
                found = _annotation(shapes, size)
            except ValueError as error:
                bad.append(Problem(image_id, image, number, str(error)))
            else:
                category = ids[shapes[0]["label"]]
                annotations.append({"id": number, "image_id": image_id, "category_id": category} | found)
        drawn.append(Drawn(record, _size(content), annotations))
    if ignored:
        counts = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common())
        log.warning("%s: shapes left out that are no objects: %s", where, counts)
    log_left_out(where, [each.file for each in missing], "LabelMe files have no image of their own and are left out")
    images = set(map(os.path.dirname, used))
    beside = [
        name
        for name in filter(is_image, find_files(root).files)
        if os.path.dirname(name) in images and name not in used
    ]
    log_left_out(where, beside, "images have no LabelMe file and are left out")
    placed, annotations, astray = place_on_images(drawn, root, where)
    records = {"categories": as_categories(ids), "images": placed, "annotations": annotations}
    return coco_dataset(records, where, root, max_bad_records, [*bad, *astray], missing)


def _read_all(folder: Path) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """Name of the file -> its content, and what is none of LabelMe's."""
    contents: dict[str, dict[str, Any]] = {}
    bad: list[Problem] = []
    for name in find_files(folder).files:
        if not name.lower().endswith(".json"):
            continue
        try:
            content = parse_json(read_text(folder / name))
        except ValueError as error:
            bad.append(Problem(None, name, None, f"not JSON: {error}"))
            continue
        if is_labelme(content):
            contents[name] = content
        else:
            log.warning("%s: %s is not of LabelMe and is left out", folder, name)
    return contents, bad


def _image_of(name: str, content: dict[str, Any], folder: Path, root: Path) -> str | None:
    """Below `root`, with slashes: what `imagePath` says, or the image of the file's own name."""
    said = PureWindowsPath(str(content.get("imagePath") or "")).as_posix()
    places = [(folder / name).parent, *(root / each for each in _IMAGES), root]
    for place in places:
        for spelling in (said, PurePosixPath(said).name):
            image = Path(os.path.normpath(place / spelling)) if spelling else None
            if image is not None and os.path.isfile(image) and image.is_relative_to(root):
                return image.relative_to(root).as_posix()
    stem = PurePosixPath(name).stem
    for place in places:
        beside = sorted(place.glob(f"{glob.escape(stem)}.*")) if place.is_dir() else []
        for image in beside:
            if image.suffix.lower() != ".json":
                return image.relative_to(root).as_posix()
    return None


def _size(content: dict[str, Any]) -> tuple[int, int] | None:
    """(width, height) as the file says; None where it does not."""
    width, height = integer(content.get("imageWidth")), integer(content.get("imageHeight"))
    return (width, height) if width and height and min(width, height) > 0 else None


# Shapes


def _shapes(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Older versions name no type where it is a polygon."""
    return ({"shape_type": "polygon"} | shape for shape in content["shapes"] if isinstance(shape, dict))


def _is_object(shape: dict[str, Any]) -> bool:
    return shape["shape_type"] in _SHAPES and isinstance(shape.get("label"), str) and bool(shape["label"])


def _objects(content: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The shapes of each object."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for place, shape in enumerate(filter(_is_object, _shapes(content))):
        group = shape.get("group_id")
        groups[("alone", place) if group is None else (shape["label"], str(group))].append(shape)
    return list(groups.values())


def _annotation(shapes: list[dict[str, Any]], size: tuple[int, int]) -> dict[str, Any]:
    """Raises ValueError where a shape is none."""
    kinds = {shape["shape_type"] for shape in shapes}
    if "mask" in kinds:
        return _masks(shapes, size)
    polygons = [_polygon(shape) for shape in shapes]
    record: dict[str, Any] = {"bbox": box_around(polygons), "iscrowd": 0}
    return record if kinds == {"rectangle"} else record | {"segmentation": polygons}


def _polygon(shape: dict[str, Any]) -> list[float]:
    points, kind = _points(shape), shape["shape_type"]
    if kind == "rectangle" and len(points) >= 2:
        return rectangle(points)
    if kind == "circle" and len(points) == 2:  # the centre, and a point of the circle
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        return ellipse(x, y, radius, radius)
    if kind in ("polygon", *_TURNED) and len(points) >= 3:
        return [value for point in points for value in point]
    raise ValueError(f"a {kind} of {len(points)} points")


def _points(shape: dict[str, Any]) -> list[tuple[float, float]]:
    try:
        return [(coordinate(x), coordinate(y)) for x, y in shape.get("points") or ()]
    except (TypeError, ValueError):
        raise ValueError(f"the points of a {shape['shape_type']} are not pairs of finite numbers") from None


def _masks(shapes: list[dict[str, Any]], size: tuple[int, int]) -> dict[str, Any]:
    """A mask is a PNG file in text, as large as its box; several are joined."""
    if {shape["shape_type"] for shape in shapes} != {"mask"}:
        raise ValueError("masks and other shapes have one group_id; masks are joined with masks only")
    whole = np.zeros(size, dtype=bool)
    for shape in shapes:
        points = _points(shape)
        if not isinstance(shape.get("mask"), str) or not points:
            raise ValueError("a mask without an image or without a place")
        try:
            image = decode(io.BytesIO(base64.b64decode(shape["mask"])), "mask")
        except (binascii.Error, BadImage, ValueError) as error:
            raise ValueError(f"a mask that cannot be read: {error}") from None
        left, top = (round(min(values)) for values in zip(*points, strict=True))
        if left < 0 or top < 0:
            raise ValueError(f"a mask that begins outside the image, at {left}, {top}")
        place = whole[top : top + image.height, left : left + image.width]
        place |= np.asarray(image)[: place.shape[0], : place.shape[1], 0] > 0
    return mask_annotation(whole)
