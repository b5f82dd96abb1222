"""COCO annotation files as they are in the world -> images with checked objects.

What everyone can see is read as it was meant; what is slightly wrong is left out, counted and reported by image id and
annotation id; what is wrong as a whole stops.
"""

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from botformer.data.detection.coco_boxes import demand_coco_boxes
from botformer.data.detection.coco_shapes import (
    LONGEST_SIDE_PX,
    BadRecord,
    NothingThere,
    as_id,
    id_text,
    integer,
    read_shape,
)
from botformer.data.detection.dataset import Annotation, Category, DetectionDataset, ImageRecord, Problem, make_dataset
from botformer.data.detection.image_paths import find_images
from botformer.data.detection.keypoints import NO_KEYPOINTS, KeypointLayout, keypoint_layout, read_keypoints
from botformer.data.image_io import BadImage, upright_size
from botformer.errors import InputError
from botformer.read_file import read_text
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_LISTED = 10
"""Problems that a message spells out."""


def open_coco(annotations: Path, folder: Path, max_bad_records: int = 20, keypoints: bool = False) -> DetectionDataset:
    """The images of an annotation file in COCO's layout; they lie in `folder`.

    Polygons, both kinds of run lengths, crowds, images without objects, objects without shapes; category ids of any
    kind of numbering, image ids that are numbers or names. Whichever of box and shape can be used is: a bad shape
    leaves a box without a mask, and the box of a shape replaces a bad one. Objects of no area or outside their image
    are dropped, however many; records that make no sense (ids that lead nowhere, neither box nor shape, images whose
    size nobody knows) are skipped up to `max_bad_records`. `problems` lists all of it, and the log the first of each.
    Images are found by `image_paths.find_images`; where the file does not say how large one is, it is looked up. One
    that stands there under several ids, as files joined from several have them, has the objects of all. With
    `keypoints` these are read too; where they make no sense, the object stays without them.

    Raises:
        InputError: not JSON, cut short, not in COCO's layout, no folder, too many bad records, boxes of another kind
            than COCO's, a file name that may mean several files, or categories with different key points, if these are
            to be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}, the folder of the images of {annotations}, does not exist")
    data, where = read_coco(annotations), str(annotations)
    images, records = _joined(find_images(data["images"], folder, where), data["annotations"], where)
    demand_coco_boxes(records, images, where)
    return coco_dataset(
        data | {"images": images, "annotations": records}, where, folder, max_bad_records, keypoints=keypoints
    )


def read_coco(annotations: Path) -> dict[str, Any]:
    """What an annotation file in COCO's layout holds, with lists `images`, each with an id and a file name,
    `annotations` and `categories`. Raises InputError."""
    data = _read_json(annotations)
    _demand_lists(data, str(annotations))
    for place, record in enumerate(data["images"]):
        _demand_id_and_name(record, f"{annotations}: images[{place}]")
    return data


def coco_dataset(
    data: Mapping[str, Any],
    where: str,
    folder: Path,
    max_bad_records: int = 20,
    known_bad: Sequence[Problem] = (),
    without_image: Sequence[Problem] = (),
    keypoints: bool = False,
) -> DetectionDataset:
    """As `open_coco`, of what such a file holds; `file_name` is the path below `folder`. `known_bad` are records that
    did not even make it into `data`. `without_image` is what belongs to images that are not there, which the reader has
    said: its objects count as left out, but not as bad records."""
    _demand_lists(data, where)
    categories = _categories(data["categories"], where)
    layout = keypoint_layout(data["categories"], where) if keypoints else NO_KEYPOINTS
    images, without_size = _images(data["images"], where, folder)
    label_of = {str(category.id): label for label, category in enumerate(categories, 1)}
    kept: dict[str, list[Annotation]] = defaultdict(list)
    lost: Counter[str] = Counter()
    bad, dropped, mended = list(known_bad), [], []
    for record in data["annotations"]:
        known = record if isinstance(record, dict) else {}
        key = id_text(known.get("image_id"))
        if key in without_size:
            lost[key] += 1
            continue
        image = images.get(key)
        try:
            annotation, left_out = _annotation(known, label_of, image, len(layout.names))
        except BadRecord as error:
            bad.append(_problem(known, image, str(error)))
        except NothingThere as error:
            dropped.append(_problem(known, image, str(error)))
        else:
            kept[key].append(annotation)
            mended += [_problem(known, image, left_out)._replace(objects=0)] if left_out else []
    bad += [
        Problem(image.id, image.file, None, f"{reason}; {lost[key]} annotations are lost with it", lost[key])
        for key, (image, reason) in without_size.items()
    ]
    _report(where, bad, dropped, mended, max_bad_records)
    records = [replace(image, annotations=tuple(kept[key])) for key, image in images.items()]
    dataset = make_dataset(where, folder, categories, records, [*bad, *dropped, *mended, *without_image], layout)
    log.info("%s: %d objects of %d categories in %d images", where, dataset.objects, len(categories), len(dataset))
    _log_crowds(dataset)
    _log_what_is_not_used(where, data["annotations"], kept, layout)
    return dataset


def coco_annotations(image: ImageRecord, categories: Sequence[Category]) -> list[dict[str, Any]]:
    """An image's annotations in COCO's form again: original category ids, boxes as they stood in the file."""
    records = []
    for annotation in image.annotations:
        record: dict[str, Any] = {} if annotation.id is None else {"id": annotation.id}
        record |= {
            "image_id": image.id,
            "category_id": categories[annotation.label - 1].id,
            "bbox": list(annotation.box_xywh),
            "area": annotation.area_px,
            "iscrowd": int(annotation.crowd),
        }
        if annotation.segmentation is not None:
            record["segmentation"] = annotation.segmentation
        if annotation.keypoints is not None:
            record["keypoints"] = [value for point in annotation.keypoints for value in point]
            record["num_keypoints"] = annotation.num_keypoints
        records.append(record)
    return records


def _joined(images: list[dict[str, Any]], annotations: list[Any], where: str) -> tuple[list[Any], list[Any]]:
    """One record per file, the first, with the annotations of all, each once. As they are where an id is that of
    several files: whose annotations are whose is not known then."""
    first: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    times = Counter(image["file_name"] for image in images)
    for image in images:
        first.setdefault(image["file_name"], image)
        if names.setdefault(id_text(image["id"]), image["file_name"]) != image["file_name"]:
            return images, annotations
    if len(first) == len(images):
        return images, annotations
    log.warning(
        "%s: %d images stand there more than once; each is taken once, with the annotations of all its records",
        where, len(images) - len(first),
    )  # fmt: skip
    joined: dict[Any, Any] = {}
    for place, record in enumerate(annotations):
        name = names.get(id_text(record.get("image_id"))) if isinstance(record, dict) else None
        if name is None or times[name] == 1:
            joined[place] = record
            continue
        moved = record | {"image_id": first[name]["id"]}
        joined.setdefault(json.dumps(moved | {"id": None}, sort_keys=True), moved)
    return list(first.values()), list(joined.values())


# The file


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path, "utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"annotation file {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise InputError(f"annotation file {path} is not JSON: byte {error.start} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"annotation file {path} cannot be read: {error.strerror or error}") from error
    if not text.strip():
        raise InputError(f"annotation file {path} is empty; copy or download it again")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        what = "ends in the middle; copy or download it again" if _cut_short(text, error) else f"is not JSON: {error}"
        raise InputError(f"annotation file {path} {what}") from None
    except ValueError as error:
        raise InputError(f"annotation file {path} holds a number that cannot be read: {error}") from None
    except RecursionError:
        raise InputError(f"annotation file {path} is not COCO's layout: its lists are nested too deep") from None
    if not isinstance(data, dict):
        raise InputError(
            f"annotation file {path} holds a {type(data).__name__}, not an object with 'images', 'annotations' and "
            "'categories'; a list alone is what results look like"
        )
    return data


def _cut_short(text: str, error: json.JSONDecodeError) -> bool:
    """It began well, and nothing but the end is missing: what could not be read there is an unfinished rest."""
    return text.lstrip()[:1] in ("{", "[") and (
        error.pos >= len(text.rstrip()) - len("false") or error.msg.startswith("Unterminated string")
    )


def _demand_lists(data: Mapping[str, Any], where: str) -> None:
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            kind = "has no" if key not in data else f"has a {type(data[key]).__name__} as"
            raise InputError(
                f"{where} {kind} {key!r}; an annotation file in COCO's layout has lists 'images', 'annotations' and "
                f"'categories' (found: {', '.join(map(str, data)) or 'nothing'})"
            )


def _categories(records: list[Any], where: str) -> list[Category]:
    """By id."""
    categories = []
    for place, record in enumerate(records):
        category_id = integer(record.get("id")) if isinstance(record, dict) else None
        if category_id is None or not isinstance(record.get("name"), str):
            raise InputError(f"{where}: categories[{place}] must have an integer 'id' and a 'name', got {record!r}")
        categories.append(Category(category_id, record["name"]))
    if not categories:
        raise InputError(f"{where}: 'categories' is empty; there is nothing to look for")
    _demand_unique((str(category.id) for category in categories), f"{where}: category id")
    return sorted(categories)


_OF_IMAGES = ("id", "file_name", "width", "height")


def _images(
    records: list[Any], where: str, folder: Path
) -> tuple[dict[str, ImageRecord], dict[str, tuple[ImageRecord, str]]]:
    """The images without their annotations, by the text of their ids; and those whose size is not known, with why."""
    images: dict[str, ImageRecord] = {}
    without_size: dict[str, tuple[ImageRecord, str]] = {}
    looked_up: list[str] = []
    for place, record in enumerate(records):
        _demand_id_and_name(record, f"{where}: images[{place}]")
        key = id_text(record["id"])
        more = {key: value for key, value in record.items() if key not in _OF_IMAGES and isinstance(value, _SIMPLE)}
        image = ImageRecord(as_id(record["id"]), record["file_name"], 0, 0, (), more)
        said = {key: record.get(key) for key in ("width", "height")}
        width, height = map(integer, said.values())
        if width is None or height is None or not 1 <= min(width, height) <= max(width, height) <= LONGEST_SIDE_PX:
            why = f"width and height are {said['width']!s:.40} and {said['height']!s:.40}"
            try:
                width, height = upright_size(folder / image.file)
            except BadImage as error:
                without_size[key] = image, f"{why}, and the image itself cannot be read: {error.reason}"
                continue
            looked_up.append(f"{image.file}: {why}; it has {width}x{height} pixels")
        images[key] = replace(image, width=width, height=height)
    _demand_unique((id_text(record["id"]) for record in records), f"{where}: image id")
    if looked_up:
        log.warning(
            "%s: %d images without a size that makes sense; it was read from the images themselves:\n%s",
            where, len(looked_up), _listed(looked_up),
        )  # fmt: skip
    return images, without_size


_SIMPLE = (str, int, float)


def _demand_id_and_name(record: Any, where: str) -> None:
    missing = [key for key in _OF_IMAGES[:2] if not isinstance(record, dict) or key not in record]
    if missing:
        raise InputError(f"{where} lacks {', '.join(map(repr, missing))}")
    if not id_text(record["id"]) or not isinstance(record["file_name"], str):
        found = {key: record[key] for key in _OF_IMAGES[:2]}
        raise InputError(f"{where} must have an 'id', an integer or a name, and a 'file_name', got {str(found)[:200]}")
    try:
        os.fsencode(record["file_name"])
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: no file can be called {record['file_name']!a:.200}; it has half a character"
        ) from None


def _demand_unique(ids: Iterable[str], what: str) -> None:
    for value, count in Counter(ids).items():
        if count > 1:
            raise InputError(f"{what} {value} stands there {count} times; ids must be unique")


# One annotation


_CROWD = {None: False, 0: False, 1: True, "": False, "0": False, "1": True}


def _annotation(
    record: dict[str, Any], label_of: dict[str, int], image: ImageRecord | None, keypoint_count: int
) -> tuple[Annotation, str]:
    """The object, and what was left out of it, if anything. Raises BadRecord or NothingThere."""
    image_id, category = (record.get(key) for key in ("image_id", "category_id"))
    if image is None:
        what = (
            f"there is no image {image_id}" if id_text(image_id) else f"image_id is {image_id!r}, not that of an image"
        )
        raise BadRecord(what)
    if integer(category) is None:
        raise BadRecord(f"category_id is {category!r}, not an integer")
    label = label_of.get(id_text(integer(category)))
    if label is None:
        raise BadRecord(f"category {category} is not in the list of categories")
    crowd = record.get("iscrowd")
    if isinstance(crowd, list | dict) or crowd not in _CROWD:
        raise BadRecord(f"iscrowd is {crowd!r}, not 0 or 1")
    shape = read_shape(record, image.width, image.height)
    points, labelled, left_out = None, 0, shape.mended
    if keypoint_count:
        points, labelled, no_points = read_keypoints(record, keypoint_count)
        left_out = "; ".join(part for part in (left_out, no_points) if part)
    annotation_id = record.get("id")
    return Annotation(
        annotation_id if isinstance(annotation_id, int | str) else None,
        label,
        shape.inside_xyxy,
        shape.box_xywh,
        shape.area_px,
        _CROWD[crowd],
        shape.segmentation,
        points,
        labelled,
    ), left_out


# What is said about it


def _problem(record: dict[str, Any], image: ImageRecord | None, reason: str) -> Problem:
    return Problem(record.get("image_id"), "" if image is None else image.file, record.get("id"), reason)


def _report(where: str, bad: list[Problem], dropped: list[Problem], mended: list[Problem], most: int) -> None:
    if len(bad) > most:
        raise InputError(
            f"{where}: {len(bad)} annotations make no sense, {most} are tolerated (max_bad_records):\n{_listed(bad)}\n"
            "Mend or remove them, or tolerate more"
        )
    for problems, what in (
        (bad, "annotations skipped that make no sense"),
        (dropped, "annotations dropped that have no area inside their image"),
        (mended, "annotations of which a part is left out or replaced"),
    ):
        if problems:
            log.warning("%s: %d %s:\n%s", where, len(problems), what, _listed(problems))


def _log_crowds(dataset: DetectionDataset) -> None:
    if dataset.crowds:
        # COCO itself has one in a hundred. Where they are the most, they are hardly meant as crowds.
        level = logging.INFO if dataset.crowds < dataset.objects else logging.WARNING
        log.log(
            level,
            "%s: %d of %d annotations are crowds (iscrowd: 1): background in training, and in evaluation neither asked "
            "for nor held against a detection. Where they are single objects (CVAT exports brush masks so), set their "
            "iscrowd to 0",
            dataset.where, dataset.crowds, dataset.crowds + dataset.objects,
        )  # fmt: skip


def _log_what_is_not_used(
    where: str, records: list[Any], kept: dict[str, list[Annotation]], layout: KeypointLayout
) -> None:
    bare = sum(found.segmentation is None and not found.crowd for each in kept.values() for found in each)
    if bare:
        log.info("%s: %d objects have no shape (segmentation), only a box", where, bare)
    if layout.names:
        return
    points = sum(isinstance(record, dict) and bool(record.get("keypoints")) for record in records)
    if points:
        log.info("%s: %d annotations have key points, which are not read; boxes and shapes are", where, points)


def _listed(problems: Sequence[Any]) -> str:
    return "  " + and_more(problems, _LISTED, separator="\n  ")
