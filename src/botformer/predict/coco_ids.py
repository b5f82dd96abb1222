"""The image ids of a COCO annotation file for files on the disk, so that predictions can be scored against it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from botformer.data.detection.coco_reader import open_coco
from botformer.errors import InputError
from botformer.text import and_more

_LISTED = 5


class IdAndSize(NamedTuple):
    id: int
    size_px: tuple[int, int] | None
    """(width, height) where the annotation file says so."""


def image_ids(
    files: Sequence[Path], categories: Sequence[tuple[int, str]], annotations: Path | None
) -> list[IdAndSize]:
    """An id for each file: 1, 2, ..., or that of the annotation file's image whose name the file's path ends in.

    Raises:
        InputError: an annotation file with other categories, a file that it does not name, or two files of one name.
    """
    if annotations is None:
        return [IdAndSize(number, None) for number, _ in enumerate(files, 1)]
    dataset = open_coco(annotations, annotations.parent)
    annotated, ours = [(category.id, category.name) for category in dataset.categories], list(categories)
    if annotated != ours:
        raise InputError(
            f"{annotations} has the categories {_listed(annotated)}, the network knows {_listed(ours)} (id name); they "
            "must be the same for scores to mean anything"
        )
    known = {record.file: record for record in map(dataset.image, range(len(dataset)))}
    matches = [_longest_match(file, known) for file in files]
    unknown = [file for file, match in zip(files, matches, strict=True) if match is None]
    if unknown:
        names = and_more(list(map(str, unknown)), _LISTED)
        raise InputError(f"{annotations} does not name {names}; leave out these files, or --annotations")
    records = [known[match] for match in matches if match is not None]
    repeated = [file for file, count in Counter(record.file for record in records).items() if count > 1]
    if repeated:
        raise InputError(f"several files are {and_more(repeated, _LISTED)} of {annotations}; name one of each")
    return [IdAndSize(record.id, (record.width, record.height)) for record in records]


def _longest_match(file: Path, known: Mapping[str, Any]) -> str | None:
    parts = file.absolute().parts
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((name for name in names if name in known), None)


def _listed(categories: Sequence[tuple[int, str]]) -> str:
    return and_more([f"{number} {name}" for number, name in categories], _LISTED)
