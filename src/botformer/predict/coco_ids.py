"""The image ids of a COCO annotation file for files on the disk, so that predictions can be scored against it."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from botformer.data.detection.coco_reader import coco_dataset, read_coco
from botformer.data.detection.coco_shapes import as_id, id_text
from botformer.data.detection.dataset import DetectionDataset, ImageId
from botformer.data.detection.image_paths import match_endings
from botformer.data.detection.match_categories import match_categories
from botformer.errors import InputError
from botformer.text import and_more

_LISTED = 5


class IdAndSize(NamedTuple):
    id: ImageId
    size_px: tuple[int, int] | None
    """(width, height) where the annotation file says so."""


class Numbered(NamedTuple):
    """Files as an annotation file knows them."""

    images: list[IdAndSize]
    """One per file."""
    categories: list[tuple[int, str]]
    """The network's, with the ids of the annotation file."""
    annotated: DetectionDataset | None = None
    """The files that can be read, with their objects."""


def image_ids(files: Sequence[Path], categories: Sequence[tuple[int, str]], annotations: Path | None) -> Numbered:
    """An id for each file: 1, 2, ..., or that of the annotation file's image whose name the file's path ends in.

    Raises:
        InputError: an annotation file with categories that the network does not know, a file that it does not name, or
            two files of one name.
    """
    if annotations is None:
        return Numbered([IdAndSize(number, None) for number, _ in enumerate(files, 1)], list(categories))
    data = read_coco(annotations)
    records = _records_of(files, data["images"], annotations)
    ids = {id_text(record["id"]) for record in records}
    dataset = coco_dataset(
        data
        | {
            # By their paths on this disk, where the size of an image can be looked up.
            "images": [record | {"file_name": str(file)} for file, record in zip(files, records, strict=True)],
            "annotations": [each for each in data["annotations"] if _image_of(each) in ids],
        },
        str(annotations),
        Path(),
        max_bad_records=sys.maxsize,  # what is predicted does not depend on them
    )
    dataset = match_categories(dataset, categories, "the network")
    sizes = {image.id: (image.width, image.height) for image in map(dataset.image, range(len(dataset)))}
    ids_and_sizes = [IdAndSize(image_id, sizes.get(image_id)) for image_id in (as_id(each["id"]) for each in records)]
    return Numbered(ids_and_sizes, [(category.id, category.name) for category in dataset.categories], dataset)


def _records_of(files: Sequence[Path], records: Sequence[Any], annotations: Path) -> list[dict[str, Any]]:
    known = {record["file_name"]: record for record in records}
    matches = {file: _longest_match(file, known) for file in files}
    unknown = [file for file, match in matches.items() if match is None]
    if unknown:
        matches |= _as_exported(unknown, [name for name in known if name not in matches.values()], annotations)
        unknown = [file for file, match in matches.items() if match is None]
    if unknown:
        names = and_more(list(map(str, unknown)), _LISTED)
        raise InputError(f"{annotations} does not name {names}; leave out these files, or --annotations")
    found = [matches[file] for file in files]
    repeated = [name for name, count in Counter(found).items() if count > 1]
    if repeated:
        raise InputError(f"several files are {and_more(repeated, _LISTED)} of {annotations}; name one of each")
    return [known[name] for name in found if name is not None]


def _longest_match(file: Path, known: Mapping[str, Any]) -> str | None:
    parts = file.absolute().parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((name for name in names if name in known), None)


def _as_exported(files: Sequence[Path], names: Sequence[str], annotations: Path) -> dict[Path, str]:
    """File -> the name that means it, in one of the forms of `image_paths`."""
    folder = Path(os.path.commonpath([file.absolute().parent for file in files]))
    below = {file.absolute().relative_to(folder).as_posix(): file for file in files}
    found = match_endings(names, list(below), folder, str(annotations))
    return {below[path]: name for name, path in found.items()}


def _image_of(annotation: Any) -> str:
    return id_text(annotation.get("image_id")) if isinstance(annotation, dict) else ""
