"""COCO annotation files as they are in the world -> images with checked objects.

What is slightly wrong is left out, counted and reported by image id and annotation id; what is wrong as a whole stops.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from botformer import rle
from botformer.data.detection.dataset import Annotation, Category, DetectionDataset, ImageRecord, Problem, make_dataset
from botformer.data.detection.keypoints import NO_KEYPOINTS, KeypointLayout, keypoint_layout, read_keypoints
from botformer.data.detection.mask_targets import Box, Segmentation, area_px
from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_LISTED = 10
"""Problems that a message spells out."""


def open_coco(annotations: Path, folder: Path, max_bad_records: int = 20, keypoints: bool = False) -> DetectionDataset:
    """The images of an annotation file in COCO's layout; they lie in `folder`.

    Polygons, both kinds of run lengths, crowds, images without objects, objects without shapes; category ids of any
    kind of numbering. Objects of no area or outside their image are dropped, however many; records that make no
    sense (numbers that are none, ids that lead nowhere, shapes that are none) are skipped up to `max_bad_records`.
    `problems` lists both, and the log the first of them. With `keypoints` these are read too; where they make no sense,
    the object stays without them.

    Raises:
        InputError: not JSON, cut short, not in COCO's layout, no folder, too many bad records, or categories with
            different key points, if these are to be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}, the folder of the images of {annotations}, does not exist")
    return coco_dataset(_read_json(annotations), str(annotations), folder, max_bad_records, keypoints=keypoints)


def coco_dataset(
    data: Mapping[str, Any],
    where: str,
    folder: Path,
    max_bad_records: int = 20,
    known_bad: Sequence[Problem] = (),
    keypoints: bool = False,
) -> DetectionDataset:
    """As `open_coco`, of what such a file holds. `known_bad` are records that did not even make it into `data`."""
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            kind = "has no" if key not in data else f"has a {type(data[key]).__name__} as"
            raise InputError(
                f"{where} {kind} {key!r}; an annotation file in COCO's layout has lists 'images', 'annotations' and "
                f"'categories' (found: {', '.join(map(str, data)) or 'nothing'})"
            )
    categories = _categories(data["categories"], where)
    layout = keypoint_layout(data["categories"], where) if keypoints else NO_KEYPOINTS
    sizes = _sizes(data["images"], where)
    files = {record["id"]: record["file_name"] for record in data["images"]}
    label_of = {category.id: label for label, category in enumerate(categories, 1)}
    kept: dict[int, list[Annotation]] = defaultdict(list)
    bad, dropped, mended = list(known_bad), [], []
    for record in data["annotations"]:
        known = record if isinstance(record, dict) else {}
        try:
            annotation, left_out = _annotation(known, label_of, sizes, len(layout.names))
        except _BadRecord as error:
            bad.append(_problem(known, files, str(error)))
        except _NothingThere as error:
            dropped.append(_problem(known, files, str(error)))
        else:
            kept[known["image_id"]].append(annotation)
            mended += [_problem(known, files, left_out)] if left_out else []
    _report(where, bad, dropped, mended, max_bad_records)
    images = [
        ImageRecord(
            record["id"],
            record["file_name"],
            *sizes[record["id"]],
            tuple(kept[record["id"]]),
            {
                key: value
                for key, value in record.items()
                if key not in _NEEDED and isinstance(value, str | int | float)
            },
        )
        for record in data["images"]
    ]
    dataset = make_dataset(where, folder, categories, images, [*bad, *dropped, *mended], layout)
    log.info("%s: %d objects of %d categories in %d images", where, dataset.objects, len(categories), len(dataset))
    _log_what_is_not_used(where, data["annotations"], kept, layout)
    return dataset


def coco_annotations(image: ImageRecord, categories: Sequence[Category]) -> list[dict[str, Any]]:
    """An image's annotations in COCO's form again: original category ids, boxes as they stood in the file."""
    records = []
    for annotation in image.annotations:
        record = {
            "id": annotation.id,
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


class _BadRecord(Exception):  # noqa: N818 - what is bad is the record
    """It makes no sense."""


class _NothingThere(Exception):  # noqa: N818 - as above
    """It makes sense, and no pixel."""


# The file


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
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


_NEEDED = ("id", "file_name", "width", "height")


def _categories(records: list[Any], where: str) -> list[Category]:
    """By id."""
    categories = []
    for place, record in enumerate(records):
        if not isinstance(record, dict) or not _is_integer(record.get("id")) or not isinstance(record.get("name"), str):
            raise InputError(f"{where}: categories[{place}] must have an integer 'id' and a 'name', got {record!r}")
        categories.append(Category(record["id"], record["name"]))
    if not categories:
        raise InputError(f"{where}: 'categories' is empty; there is nothing to look for")
    _demand_unique(Counter(category.id for category in categories), f"{where}: category id")
    return sorted(categories)


def _sizes(records: list[Any], where: str) -> dict[int, tuple[int, int]]:
    """Image id -> (width, height)."""
    for place, record in enumerate(records):
        missing = [key for key in _NEEDED if not isinstance(record, dict) or key not in record]
        if missing:
            raise InputError(f"{where}: images[{place}] lacks {', '.join(map(repr, missing))}")
        good = all(_is_integer(record[key]) for key in ("id", "width", "height")) and isinstance(
            record["file_name"], str
        )
        if not good or min(record["width"], record["height"]) < 1:
            found = {key: record[key] for key in _NEEDED}
            raise InputError(
                f"{where}: images[{place}] must have an integer 'id', a 'file_name', and 'width' and 'height' of at "
                f"least 1, got {found}"
            )
    _demand_unique(Counter(record["id"] for record in records), f"{where}: image id")
    return {record["id"]: (record["width"], record["height"]) for record in records}


def _demand_unique(counts: Counter[int], what: str) -> None:
    for value, count in counts.items():
        if count > 1:
            raise InputError(f"{what} {value} stands there {count} times; ids must be unique")


# One annotation


def _annotation(
    record: dict[str, Any], label_of: dict[int, int], sizes: dict[int, tuple[int, int]], keypoint_count: int
) -> tuple[Annotation, str]:
    """The object, and what was left out of it, if anything. Raises _BadRecord or _NothingThere."""
    annotation_id, image_id = _integer(record, "id"), _integer(record, "image_id")
    if image_id not in sizes:
        raise _BadRecord(f"there is no image {image_id}")
    width, height = sizes[image_id]
    category = _integer(record, "category_id")
    if category not in label_of:
        raise _BadRecord(f"category {category} is not in the list of categories")
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise _BadRecord(f"iscrowd is {crowd!r}, not 0 or 1")
    x, y, w, h = box = _box(record)
    if w <= 0 or h <= 0:
        raise _NothingThere(f"box {list(box)} has no area (x, y, width, height)")
    inside = (max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height)))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise _NothingThere(f"box {list(box)} lies outside the image of {width}x{height} pixels")
    segmentation, left_out = _segmentation(record.get("segmentation"), width, height)
    area = record["area"] if _is_number(record.get("area")) else _area(segmentation, w * h)
    points, labelled = None, 0
    if keypoint_count:
        points, labelled, no_points = read_keypoints(record, keypoint_count)
        left_out = "; ".join(part for part in (left_out, no_points) if part)
    return Annotation(
        annotation_id, label_of[category], inside, box, float(area), bool(crowd), segmentation, points, labelled
    ), left_out


def _area(segmentation: Segmentation | None, box_area: float) -> float:
    return box_area if segmentation is None else area_px(segmentation)


def _box(record: dict[str, Any]) -> Box:
    box = record.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise _BadRecord(f"bbox is {box!r}, not four finite numbers (x, y, width, height)")
    x, y, w, h = map(float, box)
    return x, y, w, h


def _segmentation(value: Any, width: int, height: int) -> tuple[Segmentation | None, str]:
    """The shape, None where there is none, and what was left out of it. Raises _BadRecord."""
    if value is None or value == [] or value == {}:
        return None, ""
    if isinstance(value, dict):
        return _runs(value, width, height), ""
    if not isinstance(value, list):
        raise _BadRecord(f"segmentation is a {type(value).__name__}, neither polygons nor run lengths")
    good = [part for part in value if _is_polygon(part)]
    if not good:
        raise _BadRecord("segmentation has no polygon: each is a list x, y, x, y, ... of three points or more")
    count = len(value) - len(good)
    return good, f"{count} of {len(value)} polygons left out: fewer than three points, or not numbers" if count else ""


def _is_polygon(part: Any) -> bool:
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 and all(map(_is_number, part))


def _runs(value: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    size, counts = value.get("size"), value.get("counts")
    if size != [height, width]:
        raise _BadRecord(
            f"run lengths of size {size!r} do not fit the image: {[height, width]} was expected (height, width)"
        )
    if not isinstance(counts, str) and not (isinstance(counts, list) and all(map(_is_number, counts))):
        raise _BadRecord(f"run lengths with a {type(counts).__name__} as counts; expected are a string or numbers")
    try:
        lengths = rle.decode_counts(counts)
    except ValueError as error:  # that of characters which are not ASCII is one, too
        raise _BadRecord(f"counts of the run lengths cannot be read: the string {error}") from None
    if len(lengths) and lengths.min() < 0:
        raise _BadRecord("run lengths have a negative count")
    if lengths.sum() != width * height:
        raise _BadRecord(f"run lengths add up to {lengths.sum()} pixels, the image has {width * height}")
    return {"size": size, "counts": counts}


def _integer(record: dict[str, Any], key: str) -> int:
    if not _is_integer(record.get(key)):
        raise _BadRecord(f"{key} is {record.get(key)!r}, not an integer")
    return record[key]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Finite, and no larger than a coordinate can be: JSON's integers have no end."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12  # NaN is not


# What is said about it


def _problem(record: dict[str, Any], files: dict[int, str], reason: str) -> Problem:
    image_id = record.get("image_id")
    file = files.get(image_id, "") if isinstance(image_id, int) else ""
    return Problem(image_id, file, record.get("id"), reason)


def _report(where: str, bad: list[Problem], dropped: list[Problem], mended: list[Problem], most: int) -> None:
    if len(bad) > most:
        raise InputError(
            f"{where}: {len(bad)} annotations make no sense, {most} are tolerated:\n{_listed(bad)}\nMend or remove them"
        )
    for problems, what in (
        (bad, "annotations skipped that make no sense"),
        (dropped, "annotations dropped that have no area inside their image"),
        (mended, "annotations with a part left out"),
    ):
        if problems:
            log.warning("%s: %d %s:\n%s", where, len(problems), what, _listed(problems))


def _log_what_is_not_used(
    where: str, records: list[Any], kept: dict[int, list[Annotation]], layout: KeypointLayout
) -> None:
    bare = sum(found.segmentation is None and not found.crowd for each in kept.values() for found in each)
    if bare:
        log.info("%s: %d objects have no shape (segmentation), only a box", where, bare)
    if layout.names:
        return
    points = sum(isinstance(record, dict) and bool(record.get("keypoints")) for record in records)
    if points:
        log.info("%s: %d annotations have key points, which are not read; boxes and shapes are", where, points)


def _listed(problems: list[Problem]) -> str:
    return "  " + and_more(problems, _LISTED, separator="\n  ")
