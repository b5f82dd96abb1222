"""Corrected images and their annotations -> a zip that unpacks into a data set."""

import io
import json
import math
import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Literal
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from botformer.data.classification.label_studio_choices import check_folder_name
from botformer.data.detection.coco_writer import coco_of_predictions
from botformer.data.detection.label_studio_writer import label_studio_annotations, labeling_config
from botformer.data.detection.mask_targets import fill_polygons, shape_box
from botformer.data.image_io import FORMATS, image_ending, read_header
from botformer.errors import InputError
from botformer.rle import encode_window
from botformer.serve.corrections import Corrections, coco_records, labels_of
from botformer.serve.request_body import FormFile

Layout = Literal["coco", "label_studio", "folders"]
"""coco: annotations/instances_train.json and train/; label_studio: result.json, images/ and the labeling interface;
folders: CLASS/. The first is for objects, the last for classes."""

_FILLED_AT_ONCE = 2**20
"""Pixels of an object; filling takes a few numbers for each."""
_LONGEST = 100
"""Characters of a name."""
_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)
"""Names that no file may have there."""
_ENDINGS = {".jpg": ".jpeg", ".tif": ".tiff", ".pgm": ".ppm", ".pbm": ".ppm", ".pnm": ".ppm"}


def write_archive(corrections: Corrections, files: Sequence[FormFile], layout: Layout, megapixels: float) -> BinaryIO:
    """The zip, a temporary file.

    Args:
        files: of the images, by their names; of several images of one name in their order.
        megapixels: an image may have.

    Raises:
        InputError: a layout that is not for this task, an image without a file or a file without an image, one that is
            no image or has another size, or as `coco_records` and `labels_of`.
    """
    if layout == ("folders" if corrections.task == "detection" else "coco"):
        expected = "coco or label_studio" if corrections.task == "detection" else "folders or label_studio"
        raise InputError(f"format is {layout!r}; of a {corrections.task} expected {expected}")
    images = _matched(corrections, files, megapixels)
    names = unique_names([image.name for image in corrections.images], [_ending(file) for file in images])
    out = TemporaryFile()  # noqa: SIM115 - the caller closes it
    with ZipFile(out, "w") as archive:
        if layout == "folders":
            labels = labels_of(corrections)
            for label in set(labels):
                check_folder_name(label)
            paths = [f"{label}/{name}" for label, name in zip(labels, names, strict=True)]
        else:
            paths = [f"{'train' if layout == 'coco' else 'images'}/{name}" for name in names]
            for name, text in _annotations(corrections, layout, names).items():
                archive.writestr(ZipInfo(name), text, ZIP_DEFLATED)
        for path, file in zip(paths, images, strict=True):
            with archive.open(ZipInfo(path), "w", force_zip64=True) as stored:
                shutil.copyfileobj(file, stored)
    out.seek(0)
    return out


def unique_names(names: Sequence[str], endings: Sequence[str]) -> list[str]:
    """Names for files of one folder, of any system: without folders, of plain characters, each once in any case."""
    found: dict[str, None] = {}
    taken = set()
    for name, ending in zip(names, endings, strict=True):
        stem, own_ending = _safe(name, ending)
        number, unique = 1, f"{stem}{own_ending}"
        while unique.casefold() in taken:
            number += 1
            unique = f"{stem}-{number}{own_ending}"
        taken.add(unique.casefold())
        found[unique] = None
    return list(found)


def _safe(name: str, ending: str) -> tuple[str, str]:
    """Stem and ending; the name's own one if it is that of its content, which `ending` is."""
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    path = PurePosixPath(last) if last.strip(". ") else PurePosixPath("image")
    own = path.suffix.lower()
    is_right = _ENDINGS.get(own, own) == ending
    stem = re.sub(r"[^\w.-]+", "_", path.stem if is_right else path.name).strip("._ ")[:_LONGEST] or "image"
    if _OF_WINDOWS.fullmatch(stem.partition(".")[0]):
        stem = f"image_{stem}"
    return stem, path.suffix if is_right else ending


def _ending(file: BinaryIO) -> str:
    file.seek(0)
    ending = image_ending(file.read(16))
    file.seek(0)
    return ending


def _matched(corrections: Corrections, files: Sequence[FormFile], megapixels: float) -> list[BinaryIO]:
    """The file of each image: the first with its name that is left."""
    left = list(files)
    found = []
    for image in corrections.images:
        place = next((place for place, each in enumerate(left) if _as_in_forms(image.name) in each.names), None)
        if place is None:
            raise InputError(f"the form has no file {image.name!r}, which the annotations name; add it")
        file = left.pop(place).file
        if not _ending(file):
            raise InputError(f"the file {image.name!r} is not an image that can be read ({', '.join(FORMATS)})")
        header = read_header(file, image.name, megapixels)
        file.seek(0)
        if (header.width, header.height) != (image.width, image.height):
            raise InputError(
                f"the annotations say that {image.name!r} has {image.width}x{image.height} px; it has "
                f"{header.width}x{header.height} (upright): was it another file that was annotated?"
            )
        found.append(file)
    if left:
        raise InputError(f"the annotations do not name the file {left[0].names[1]!r}; leave it out")
    return found


def _as_in_forms(name: str) -> str:
    """As browsers write a file's name there."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _annotations(corrections: Corrections, layout: str, names: Sequence[str]) -> dict[str, str]:
    """Path in the zip -> text."""
    images: dict[str, Any] = {
        "images": [
            {"id": number, "file_name": name, "width": image.width, "height": image.height}
            for number, (name, image) in enumerate(zip(names, corrections.images, strict=True), 1)
        ],
        "categories": [],
    }
    if corrections.task == "classification":
        labels = labels_of(corrections)
        records = [{"image_id": number, "top5": [[label, 1.0]]} for number, label in enumerate(labels, 1)]
        known = dict.fromkeys([*(each.name for each in corrections.categories), *labels])
        images["categories"] = [{"id": number, "name": name} for number, name in enumerate(known)]
    else:
        records, images["categories"] = coco_records(corrections)
    if layout == "coco":
        return {"annotations/instances_train.json": _json(coco_of_predictions(records, images))}
    sizes = {image["id"]: (image["width"], image["height"]) for image in images["images"]}
    records = [_for_label_studio(record, *sizes[record["image_id"]]) for record in records]
    tasks = label_studio_annotations(records, images, {name: f"images/{name}" for name in names})
    return {"result.json": _json(tasks), "labeling_interface.xml": labeling_config(tasks, images)}


def _for_label_studio(record: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """An object of several polygons would become several objects there: it is brushed instead."""
    polygons = record.get("segmentation", ())
    if len(polygons) < 2:
        return record
    x1, y1, x2, y2 = shape_box(polygons)
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = max(left, min(width, math.ceil(x2))), max(top, min(height, math.ceil(y2)))
    window = np.zeros((bottom - top, right - left), dtype=bool)
    rows = max(1, _FILLED_AT_ONCE // max(1, right - left))
    for first in range(top, bottom if right > left else top, rows):
        last = min(bottom, first + rows)
        of_box = (float(left), float(first), float(right), float(last))
        window[first - top : last - top] = fill_polygons(polygons, of_box, (last - first, right - left))
    return record | {"segmentation": encode_window(window, (top, left), (height, width))}


def _json(content: Any) -> str:
    text = io.StringIO()
    json.dump(content, text, ensure_ascii=False, allow_nan=False)
    return text.getvalue()
