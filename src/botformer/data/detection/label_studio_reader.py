"""Boxes, polygons, ellipses and brush strokes in an export of Label Studio -> the records of a COCO file."""

import logging
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botformer.data.detection.brush_rle import decode_brush
from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.dataset import NO_IMAGE, DetectionDataset, Problem
from botformer.data.detection.drawn_shapes import (
    as_categories,
    box_around,
    categories_by_name,
    coordinate,
    ellipse,
    image_record,
    mask_annotation,
)
from botformer.data.detection.exported_text import log_left_out
from botformer.data.detection.label_studio_export import Task, image_files, read_tasks
from botformer.errors import InputError

log = logging.getLogger("botformer.data")


def open_label_studio(content: list[Any], file: Path, root: Path, max_bad_records: int = 20) -> DetectionDataset:
    """The images of an export, JSON or JSON_MIN, with what is drawn on them. They lie anywhere below `root`.

    Polygons, ellipses, brush strokes and turned rectangles are shapes; a straight rectangle is a box without one. Key
    points and lines are no objects; they are counted. Of several annotations of an image one counts (`read_tasks`).
    Categories are the labels, ids from 1 in their order.

    Raises InputError as `coco_reader.open_coco`, and where no image or no object can be found.
    """
    where = str(file)
    tasks = read_tasks(content, where)
    files = image_files((task.image for task in tasks), root, where)
    if not files:
        raise InputError(
            f"{file}: none of its {len(tasks)} images, such as {tasks[0].image}, is in {root}; copy the images there"
        )
    objects = {place: _objects(task) for place, task in enumerate(tasks)}
    ids = categories_by_name(each["label"] for found in objects.values() for each in found if each["label"])
    if not ids:
        raise InputError(
            f"{file}: none of its {len(tasks)} annotated images has a labelled rectangle, polygon, ellipse or brush "
            "stroke"
        )
    records: dict[str, Any] = {"categories": as_categories(ids), "images": [], "annotations": []}
    bad: list[Problem] = []
    missing: list[Problem] = []
    ignored: Counter[str] = Counter()
    used: set[str] = set()
    for place, task in enumerate(tasks):
        image_id = place + 1
        name = files.get(task.image)
        if name is None or name in used:
            said = task.image if name is None else f"{task.image} (another task has it, too)"
            missing.append(Problem(image_id, said, None, NO_IMAGE, len(objects[place])))
            continue
        used.add(name)
        record = image_record(image_id, root, name)
        records["images"].append(record)
        size = record.get("height", 1), record.get("width", 1)
        ignored.update(_kinds_left_out(task))
        for number, each in enumerate(objects[place], 1):
            if not each["label"]:
                ignored[f"{each['kind']} without a label"] += 1
                continue
            try:
                found = _annotation(each, size)
            except (KeyError, TypeError, ValueError) as error:
                bad.append(Problem(image_id, name, number, _words(error, each)))
            else:
                head = {"id": number, "image_id": image_id, "category_id": ids[each["label"]]}
                records["annotations"].append(head | found)
    if ignored:
        counts = ", ".join(f"{count} {kind}" for kind, count in ignored.most_common())
        log.warning("%s: regions left out that are no objects: %s", where, counts)
    log_left_out(where, [each.file for each in missing], "images are not there and are left out")
    return coco_dataset(records, where, root, max_bad_records, bad, missing)


# Regions

_OF_IMAGE = ("original_width", "original_height", "image_rotation")


def _objects(task: Task) -> list[dict[str, Any]]:
    """Geometry with its label, or "". A region is one result, or several with one id: its geometry, and its label."""
    merged: dict[Any, dict[str, Any]] = {}
    for place, region in enumerate(task.regions):
        value = region.get("value")
        if not isinstance(value, dict):
            continue
        key = region.get("id") or ("alone", place)
        own = merged.setdefault(key, {"value": {}})
        own["value"] = own["value"] | value
        own |= {
            name: region[name] for name in ("original_width", "original_height", "image_rotation") if name in region
        }
    found = []
    for region in merged.values():
        if kind := _kind(region["value"]):
            found.append(region | {"kind": kind, "label": _label(region["value"])})
    return found


def _kind(value: Mapping[str, Any]) -> str:
    """Of the geometry; empty where there is none that is an object."""
    if "rle" in value:
        return "brush stroke"
    if "points" in value:
        return "polygon" if value.get("closed", True) else ""
    if "radiusX" in value:
        return "ellipse"
    # A key point has a width, too, but no height.
    return "rectangle" if {"x", "y", "width", "height"} <= value.keys() else ""


def _label(value: Mapping[str, Any]) -> str:
    labels = next((each for name, each in value.items() if name.endswith("labels") and isinstance(each, list)), [])
    return next((label for label in labels if isinstance(label, str) and label), "")


def _kinds_left_out(task: Task) -> list[str]:
    left_out = []
    for region in task.regions:
        value = region.get("value")
        if isinstance(value, dict) and not _kind(value) and region.get("type") != "labels":
            left_out.append(str(region.get("type") or "without a type"))
    return left_out


def _annotation(region: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """`size`: height and width of the image. Raises KeyError, TypeError or ValueError where a region is none."""
    value, (height, width) = region["value"], size
    if region.get("image_rotation"):
        raise ValueError(f"drawn on an image that was turned by {region['image_rotation']} degrees in the editor")
    if region["kind"] == "brush stroke":
        said = region.get("original_height", height), region.get("original_width", width)
        if said != size:
            raise ValueError(f"a brush stroke on an image of {said[1]}x{said[0]} pixels, this one has {width}x{height}")
        return mask_annotation(decode_brush(value["rle"], size))
    polygon = _polygon(region["kind"], value, width, height)
    record: dict[str, Any] = {"bbox": box_around([polygon]), "iscrowd": 0}
    straight = region["kind"] == "rectangle" and not value.get("rotation")
    return record if straight else record | {"segmentation": [polygon]}


def _polygon(kind: str, value: Mapping[str, Any], width: int, height: int) -> list[float]:
    """x, y, x, y, ... in pixels; all sides are per cent of the image's."""
    if kind == "polygon":
        points = [(coordinate(x) * width / 100, coordinate(y) * height / 100) for x, y in value["points"]]
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        return [side for point in points for side in point]
    x, y = coordinate(value["x"]) * width / 100, coordinate(value["y"]) * height / 100
    angle = math.radians(coordinate(value.get("rotation") or 0))
    if kind == "ellipse":  # x, y is the centre
        radii = coordinate(value["radiusX"]) * width / 100, coordinate(value["radiusY"]) * height / 100
        corners = ellipse(0, 0, *radii)
    else:  # the upper left corner, around which it is turned
        right, bottom = coordinate(value["width"]) * width / 100, coordinate(value["height"]) * height / 100
        corners = [0, 0, right, 0, right, bottom, 0, bottom]
    cos, sin = math.cos(angle), math.sin(angle)
    return [
        side
        for dx, dy in zip(corners[0::2], corners[1::2], strict=True)
        for side in (x + dx * cos - dy * sin, y + dx * sin + dy * cos)
    ]


def _words(error: Exception, region: Mapping[str, Any]) -> str:
    return str(error) if isinstance(error, ValueError) else f"a {region['kind']} without its numbers ({error})"
