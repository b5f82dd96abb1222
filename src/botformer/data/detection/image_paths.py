"""The files that an annotation file means by its `file_name`s, which exporters write as they please.

    images/x.jpg, train/x.jpg, ./x.jpg, sub\\x.jpg, C:\\data\\x.jpg, /home/ann/x.jpg, x%201.jpg

The path below the folder of the images, as it stands, comes first. Otherwise a file of that name below the folder is
taken: written and real path must be the same from the end on to where one of them begins. The longest such path wins;
where two are as long, nobody can know.
"""

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_LISTED = 5
OF_SYSTEMS = ("@eaDir", "__MACOSX")
"""Folders with thumbnails and the like beside the images, under the same names."""


def find_images(records: Sequence[dict[str, Any]], folder: Path, where: str) -> list[dict[str, Any]]:
    """COCO's `images` with `file_name` as the path below `folder`, with slashes, where there is such a file.

    What is not there keeps its name. What was found under another path than the one written is said once, in the log.

    Raises:
        InputError: a name that may mean several files, or two names that mean one.
    """
    found = find_files([record["file_name"] for record in records], folder, where)
    return [record | {"file_name": found.get(record["file_name"], record["file_name"])} for record in records]


def find_files(names: Sequence[str], folder: Path, where: str) -> dict[str, str]:
    """Names as an annotation file has them -> paths below `folder`, with slashes; without those that are not there.
    Raises as `find_images`."""
    files = _files_below(folder)
    there = set(files)
    found = {name: path for name in names if (path := _as_written(name, folder, there)) is not None}
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if missing:
        found |= match_endings(missing, sorted(there - set(found.values())), folder, where)
    other = [f"{name} is {path}" for name, path in found.items() if name != path]
    if other:
        log.info(
            "%s: %d images lie under another path in %s than the one written: %s",
            where, len(other), folder, and_more(other, _LISTED),
        )  # fmt: skip
    return found


def match_endings(names: Sequence[str], files: Sequence[str], folder: Path, where: str) -> dict[str, str]:
    """Names -> those of the `files` below `folder` that are the same from the end on, the longest; without names for
    which there is none. Raises as `find_images`."""
    root = _parts(folder.absolute().as_posix())
    files_of: dict[str, list[str]] = defaultdict(list)
    for file in files:
        files_of[_parts(file)[-1].casefold()].append(file)
    agreeing: dict[str, tuple[float, str]] = {}
    for name in names:
        for parts in filter(None, _readings(name)):
            lengths = {file: _agreement(parts, root, _parts(file)) for file in files_of.get(parts[-1].casefold(), [])}
            longest = max(lengths.values(), default=0)
            candidates = [file for file, length in lengths.items() if length == longest]
            if longest and len(candidates) > 1:
                raise InputError(
                    f"{where}: file_name {name!r} may be {and_more(candidates, _LISTED)} in {folder}; write the path "
                    "below that folder, or leave only one of them there"
                )
            if longest:
                agreeing[name] = longest, candidates[0]
                break
    return _without_rivals(agreeing, folder, where)


def _without_rivals(agreeing: Mapping[str, tuple[float, str]], folder: Path, where: str) -> dict[str, str]:
    """Of several names for one file the one that agrees longest; the others' files are not there."""
    names_of: dict[str, list[str]] = defaultdict(list)
    for name, (_, file) in agreeing.items():
        names_of[file].append(name)
    found = {}
    for file, names in names_of.items():
        longest = max(agreeing[name][0] for name in names)
        best = [name for name in names if agreeing[name][0] == longest]
        if len(best) > 1:
            raise InputError(
                f"{where}: {file} in {folder} may be any of the file_names {and_more(best, _LISTED)}; put each image "
                "at the path that is written"
            )
        found[best[0]] = file
    return found


def _as_written(name: str, folder: Path, there: set[str]) -> str | None:
    """The path below the folder, if it needs no more than slashes and dots mended."""
    for path in (name, name.replace("\\", "/")):
        plain = PurePosixPath(path).as_posix()  # without "./" and "//"
        if plain in there or os.path.isfile(folder / path):  # behind links, above the folder, or anywhere else
            return plain
    return None


def _files_below(folder: Path) -> list[str]:
    """Sorted, with slashes. Links to folders are not followed, hidden folders not entered."""
    files = []
    for path, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each not in OF_SYSTEMS]
        below = Path(path).relative_to(folder)
        files += [(below / name).as_posix() for name in names]
    return sorted(files)


def _readings(name: str) -> list[list[str]]:
    """The parts of the path, as it stands and as the end of an address."""
    _, _, query = name.partition("?d=")  # Label Studio's files of one's own: /data/local-files/?d=folder/x.jpg
    return [_parts(name), _parts(unquote(query or name.partition("?")[0]))]


def _parts(path: str) -> list[str]:
    """Composed and decomposed letters are the same ones: macOS writes the latter."""
    plain = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return [part for part in plain.split("/") if part not in ("", ".")]


def _agreement(written: list[str], root: list[str], below: list[str]) -> float:
    """How many last parts are the same, and a half more where capitals are, too; 0 where neither path ends in the
    other: sub/x.jpg is not other/x.jpg."""
    real = [*root, *below]
    pairs = zip(reversed(written), reversed(real), strict=False)
    same = next(
        (count for count, (a, b) in enumerate(pairs) if a.casefold() != b.casefold()), min(len(written), len(real))
    )
    if same < min(len(written), len(below)):
        return 0
    return same + (0.5 if written[-1] == below[-1] else 0)
