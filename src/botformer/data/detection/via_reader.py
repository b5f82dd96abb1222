"""The JSON file of the VGG Image Annotator (VIA, versions 1 and 2) -> the records of a COCO file."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.dataset import NO_IMAGE, DetectionDataset, Problem
from botformer.data.detection.drawn_shapes import (
    as_categories,
    box_around,
    categories_by_name,
    coordinate,
    ellipse,
    image_record,
    rectangle,
)
from botformer.data.detection.exported_text import find_exported, log_left_out
from botformer.errors import InputError

log = logging.getLogger("botformer.data")

_SHAPES = ("rect", "polygon", "circle", "ellipse")
_ATTRIBUTES = ("class", "label", "category", "name", "type", "object")
"""What the attribute with the class may be called, if there are several."""

_ONE_CLASS = "object"
"""Its name, where no region says one."""


def via_images(content: Any) -> list[dict[str, Any]] | None:
    """The records of images in a JSON file's content, of a project or of exported annotations; None if it is no VIA."""
    records = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    values = list(records.values()) if isinstance(records, dict) else []
    good = all(
        isinstance(each, dict) and isinstance(each.get("filename"), str) and "regions" in each for each in values
    )
    return values if values and good else None


def open_via(
    images: Sequence[dict[str, Any]], file: Path, folders: Sequence[Path], max_bad_records: int = 20
) -> DetectionDataset:
    """The images of such a file, each in the first of `folders` that has it.

    Rectangles are boxes; polygons, circles and ellipses are shapes; points and lines are no objects and are counted.
    The class is the value of the attribute that all regions have, of several the one called class, label, category,
    name or type; without attributes all are of one class. Ids from 1 in the order of the names. Sizes are the images'.

    Raises InputError as `coco_reader.open_coco`, and where nobody can know the class.
    """
    folder = next(
        (each for each in folders if any(os.path.isfile(each / record["filename"]) for record in images)), None
    )
    if folder is None:
        raise InputError(
            f"{file}: none of its {len(images)} images, such as {images[0]['filename']}, is in "
            f"{' or '.join(map(str, folders))}"
        )
    key = _class_key(images, file)
    ids = categories_by_name(
        name for record in images for region in _regions(record) if (name := _class(region, key)) is not None
    )
    if not ids:
        raise InputError(f"{file}: none of its {len(images)} images has a region with a class")
    records: dict[str, Any] = {"categories": as_categories(ids), "images": [], "annotations": []}
    bad: list[Problem] = []
    ignored: Counter[str] = Counter()
    missing = []
    for image_id, said in enumerate(sorted(images, key=lambda record: record["filename"]), 1):
        place = find_exported(said["filename"], [folder])
        if place is None or not place.is_relative_to(folder):
            lost = sum(region["shape_attributes"].get("name") in _SHAPES for region in _regions(said))
            missing.append(Problem(image_id, said["filename"], None, NO_IMAGE, lost))
            continue
        name = place.relative_to(folder).as_posix()
        records["images"].append(image_record(image_id, folder, name))
        for number, region in enumerate(_regions(said), 1):
            shape = region["shape_attributes"]
            if shape.get("name") not in _SHAPES:
                ignored[str(shape.get("name"))] += 1
                continue
            try:
                found = _annotation(shape)
            except (KeyError, TypeError, ValueError) as error:
                bad.append(Problem(image_id, name, number, f"a {shape['name']} without its numbers ({error})"))
                continue
            category = _class(region, key)
            if category is None:
                bad.append(Problem(image_id, name, number, f"the region has no {key!r}"))
            else:
                records["annotations"].append(
                    {"id": number, "image_id": image_id, "category_id": ids[category]} | found
                )
    if ignored:
        counts = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common())
        log.warning("%s: regions left out that are no objects: %s", file, counts)
    log_left_out(str(file), [each.file for each in missing], "images are not there and are left out")
    return coco_dataset(records, str(file), folder, max_bad_records, bad, missing)


def _regions(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A list, or in version 1 an object with numbers as keys."""
    regions = record["regions"]
    listed = regions.values() if isinstance(regions, dict) else regions if isinstance(regions, list) else ()
    for region in listed:
        if isinstance(region, dict) and isinstance(region.get("shape_attributes"), dict):
            yield region


def _attributes(region: dict[str, Any]) -> dict[str, Any]:
    said = region.get("region_attributes")
    return said if isinstance(said, dict) else {}


def _class_key(images: Sequence[dict[str, Any]], file: Path) -> str | None:
    """The attribute that holds the class; None where there are no attributes at all."""
    used = Counter(key for record in images for region in _regions(record) for key in _attributes(region))
    if len(used) <= 1:
        return next(iter(used), None)
    likely = [key for name in _ATTRIBUTES for key in used if key.lower() == name]
    if not likely:
        raise InputError(
            f"{file}: the regions have the attributes {', '.join(used)}; call the one that holds the class 'class'"
        )
    log.info("%s: the class is the attribute %r; others are not read", file, likely[0])
    return likely[0]


def _class(region: dict[str, Any], key: str | None) -> str | None:
    if key is None:
        return _ONE_CLASS
    value = _attributes(region).get(key)
    if isinstance(value, dict):  # boxes to tick
        ticked = [name for name, on in value.items() if on]
        value = ticked[0] if len(ticked) == 1 else None
    return value.strip() if isinstance(value, str) and value.strip() else None


def _annotation(shape: dict[str, Any]) -> dict[str, Any]:
    """Raises KeyError, TypeError or ValueError where numbers are missing."""
    kind = shape["name"]
    if kind == "rect":
        x, y, width, height = (coordinate(shape[key]) for key in ("x", "y", "width", "height"))
        return {"bbox": box_around([rectangle([(x, y), (x + width, y + height)])]), "iscrowd": 0}
    if kind == "polygon":
        xs, ys = shape["all_points_x"], shape["all_points_y"]
        polygon = [coordinate(value) for point in zip(xs, ys, strict=True) for value in point]
        if len(polygon) < 6:
            raise ValueError("fewer than three points")
    else:
        radii = ("r", "r") if kind == "circle" else ("rx", "ry")
        polygon = ellipse(*(coordinate(shape[key]) for key in ("cx", "cy", *radii)))
        turn = coordinate(shape.get("theta") or 0)
        polygon = _turned(polygon, coordinate(shape["cx"]), coordinate(shape["cy"]), turn) if turn else polygon
    return {"bbox": box_around([polygon]), "segmentation": [polygon], "iscrowd": 0}


def _turned(polygon: Sequence[float], x: float, y: float, angle: float) -> list[float]:
    """By `angle` radians, clockwise as the image is seen."""
    turn = complex(math.cos(angle), math.sin(angle))
    points = (complex(px - x, py - y) * turn for px, py in zip(polygon[0::2], polygon[1::2], strict=True))
    return [value for point in points for value in (point.real + x, point.imag + y)]
