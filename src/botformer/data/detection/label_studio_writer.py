"""Predictions -> tasks of Label Studio with pre-annotations, to be corrected there instead of drawn anew."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from contourpy import contour_generator

from botformer import rle
from botformer.data.detection.brush_rle import encode_brush
from botformer.errors import InputError

Shapes = Literal["brush", "polygon", "box"]
"""How masks are drawn: as brush strokes, which are exact; as polygons, which are easier to move; or not at all."""

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio finds files of its own machine, below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
_LEAST_PART = 0.01
"""Parts of a mask that are smaller than this fraction of it get no polygon."""
_TAGS = {
    "rectanglelabels": ("box", "RectangleLabels"),
    "polygonlabels": ("polygon", "PolygonLabels"),
    "brushlabels": ("brush", "BrushLabels"),
    "keypointlabels": ("keypoint", "KeyPointLabels"),
    "choices": ("choice", "Choices"),
}
"""Type of a result -> the name of its control, and the control."""


def label_studio_tasks(
    records: Sequence[Mapping[str, Any]],
    images: Mapping[str, Any],
    threshold: float = 0.5,
    shapes: Shapes = "brush",
    at: str = LOCAL_FILES,
    paths: Mapping[str, str] | None = None,
    model_version: str = "botformer",
) -> list[dict[str, Any]]:
    """One task per image, with what was predicted on it; for Label Studio's import.

    Args:
        records: what predictions.json holds: COCO's results of a detector, or the best classes of a classifier. Shapes
            may also be polygons, which stay such.
        images: what images.json holds.
        threshold: objects with a lower score are left out; a class is always there.
        shapes: how masks are drawn; the box of a mask that is drawn is not repeated.
        at: stands in front of each path: where the images are for Label Studio. The path is quoted as in addresses
            where `at` is one with a query.
        paths: `file_name` -> path below the folder that Label Studio serves; by default they are the same.
        model_version: how Label Studio calls these predictions.

    Raises InputError for predictions of an image that is not among them.
    """
    names = {category["id"]: category["name"] for category in images["categories"]}
    keypoints = {category["id"]: category.get("keypoints", []) for category in images["categories"]}
    found: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        found[record.get("image_id", record.get("file_name"))].append(record)
    there = {image[key] for image in images["images"] for key in ("id", "file_name")}
    for key in found:
        if key not in there:
            raise InputError(f"there are predictions of the image {key!r:.80}, which is not among the images")
    tasks = []
    for image in images["images"]:
        size = image["height"], image["width"]
        results: list[dict[str, Any]] = []
        scores = []
        numbers = count(1)
        file = image["file_name"]
        for record in (*found[image["id"]], *found[file]):
            if "top5" in record:
                (name, score), *_ = record["top5"]
                results.append(_result("choices", f"{next(numbers)}", {"choices": [name]}, score))
            elif record["score"] >= threshold:
                score, name = record["score"], names[record["category_id"]]
                results += _object(record, name, keypoints[record["category_id"]], size, shapes, numbers)
            else:
                continue
            scores.append(float(score))
        for result in results:
            result |= {"original_width": size[1], "original_height": size[0], "image_rotation": 0}
        path = paths[file] if paths else file
        path = quote(os.fsencode(path)) if "?" in at else path
        prediction: dict[str, Any] = {"model_version": model_version, "result": results}
        if scores:
            prediction["score"] = min(scores)  # tasks with a doubtful object come first where they are sorted by it
        tasks.append({"data": {"image": at + path}, "predictions": [prediction]})
    return tasks


def label_studio_annotations(
    records: Sequence[Mapping[str, Any]], images: Mapping[str, Any], paths: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """As `label_studio_tasks`, of what a person has confirmed: annotations, not predictions, and without scores."""
    sure = [dict(record) | {"score": 1.0} for record in records]
    tasks = label_studio_tasks(sure, images, 0.0, paths=paths)
    for task in tasks:
        (prediction,) = task.pop("predictions")
        result = [{name: value for name, value in each.items() if name != "score"} for each in prediction["result"]]
        task["annotations"] = [{"result": result}]
    return tasks


def labeling_config(tasks: Sequence[Mapping[str, Any]], images: Mapping[str, Any]) -> str:
    """The labeling interface that the tasks belong to, as XML for the settings of a project."""
    drawn = [each for task in tasks for kind in ("predictions", "annotations") for each in task.get(kind, ())]
    used = {result["type"] for each in drawn for result in each["result"]} or {"rectanglelabels"}
    lines = ["<View>", '  <Image name="image" value="$image"/>']
    for kind, (control, tag) in _TAGS.items():
        if kind not in used:
            continue
        names = [category["name"] for category in images["categories"]]
        if kind == "keypointlabels":
            names = [name for category in images["categories"] for name in category.get("keypoints", [])]
        child = "Choice" if kind == "choices" else "Label"
        values = [f"    <{child} value={quoteattr(name)}/>" for name in dict.fromkeys(names)]
        lines += [f'  <{tag} name="{control}" toName="image">', *values, f"  </{tag}>"]
    return "\n".join([*lines, "</View>", ""])


def below_one_folder(names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The folder that all absolute paths have in common, and the paths below it."""
    paths = {name: PurePosixPath(name) for name in names}
    common = PurePosixPath(*_common([path.parent.parts for path in paths.values()]))
    return str(common), {name: path.relative_to(common).as_posix() for name, path in paths.items()}


def _common(parts: Iterable[Sequence[str]]) -> list[str]:
    same = []
    for places in zip(*parts, strict=False):
        if len(set(places)) > 1:
            break
        same.append(places[0])
    return same


def _object(
    record: Mapping[str, Any],
    name: str,
    keypoints: Sequence[str],
    size: tuple[int, int],
    shapes: Shapes,
    numbers: Iterable[int],
) -> list[dict[str, Any]]:
    numbers = iter(numbers)
    height, width = size
    score = float(record["score"])
    results = []
    if "segmentation" in record and shapes != "box":
        segmentation = record["segmentation"]
        if isinstance(segmentation, list):
            polygons = [list(zip(flat[0::2], flat[1::2], strict=True)) for flat in segmentation]
        else:
            mask = rle.decode(segmentation)
            if shapes == "brush":
                value = {"format": "rle", "rle": encode_brush(mask), "brushlabels": [name]}
                return [_result("brushlabels", f"{next(numbers)}", value, score)] if mask.any() else []
            polygons = [polygon.tolist() for polygon in mask_polygons(mask)]
        for polygon in polygons:
            points = [[100 * x / width, 100 * y / height] for x, y in polygon]
            value = {"points": points, "closed": True, "polygonlabels": [name]}
            results.append(_result("polygonlabels", f"{next(numbers)}", value, score))
        return results
    x, y, w, h = record["bbox"]
    box = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * w / width, "height": 100 * h / height}
    results.append(
        _result("rectanglelabels", f"{next(numbers)}", box | {"rotation": 0, "rectanglelabels": [name]}, score)
    )
    flat = record.get("keypoints", [])
    for point, px, py, seen in zip(keypoints, flat[0::3], flat[1::3], flat[2::3], strict=False):
        if seen:
            # COCO counts from the middle of the first pixel.
            place = {"x": 100 * (px + 0.5) / width, "y": 100 * (py + 0.5) / height}
            value = place | {"width": 0.5, "keypointlabels": [point]}
            region = _result("keypointlabels", f"{next(numbers)}", value, score)
            results.append(region | {"parentID": results[0]["id"]})
    return results


def _result(kind: str, region: str, value: dict[str, Any], score: float) -> dict[str, Any]:
    control, _ = _TAGS[kind]
    head = {"id": region, "from_name": control, "to_name": "image", "type": kind}
    return head | {"value": value, "score": round(float(score), 6)}


def mask_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a bool mask (height, width): (n, 2) x, y in pixels. Holes are filled, crumbs left out."""
    padded = np.pad(mask, 1).astype(np.float32)
    lines = contour_generator(z=padded).lines(0.5)
    # The centre of pixel 0 is at 0.5; the padding has moved all by 1.
    outlines = [np.asarray(line)[:-1] - 0.5 for line in lines]
    # Round what is outside, contours run the other way than round holes.
    areas = [_signed_area(outline) for outline in outlines]
    outer = max(areas, key=abs, default=0.0)
    least = _LEAST_PART * abs(outer)
    return [
        _without_straight_points(outline)
        for outline, area in zip(outlines, areas, strict=True)
        if area * outer > 0 and abs(area) >= least
    ]


def _signed_area(outline: np.ndarray) -> float:
    x, y = outline.T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def _without_straight_points(outline: np.ndarray) -> np.ndarray:
    """Without points on the line between their neighbours."""
    before, after = outline - np.roll(outline, 1, axis=0), np.roll(outline, -1, axis=0) - outline
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-6
    return outline[turns] if turns.sum() >= 3 else outline
