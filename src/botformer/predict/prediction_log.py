"""predictions.jsonl: a line per image, written as it is predicted, so that a run that was killed goes on.

While a run is unfinished, unfinished.json beside it says with which network and options it began. On Ray the lines are
written at the end, and what is done until then are Parquet files and Ray's own notes of what they hold.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from botformer.atomic_write import write_json
from botformer.errors import InputError
from botformer.predict.tar_members import is_tar
from botformer.read_file import demand_file, open_file, read_json
from botformer.text import printable

LINES, UNFINISHED = "predictions.jsonl", "unfinished.json"
PREDICTIONS, IMAGES = "predictions.json", "images.json"
"""What is made of the lines when a run is finished."""
PARQUET, RAY_CHECKPOINT = "predictions.parquet", "ray_checkpoint"
"""Folders of a run on Ray: what was predicted, and which images that was of, which is removed at the end."""
_DIGESTS = ("network", "images")
_SYNCED_EVERY_S = 5.0
"""A power cut loses no more; a killed process loses nothing."""


def json_text(content: Any) -> str:
    """On one line."""
    return json.dumps(content, ensure_ascii=False)


class PredictionLog:
    """The lines of a run in `folder`; to be closed.

    `began_with` is what must be the same for an unfinished run to go on. A finished one is replaced
    (see `check_replaced`).

    Raises:
        InputError: an unfinished run of another network, or with other options.
    """

    def __init__(self, folder: Path, began_with: Mapping[str, Any]) -> None:
        self._path, self._unfinished = folder / LINES, folder / UNFINISHED
        self._folder = folder
        begins_anew = not check_unfinished(folder, began_with)
        if self._path.exists():
            demand_file(self._path)
        self._file = self._path.open("ab", buffering=0)
        try:
            _lock(self._file, folder)
            if begins_anew:
                self.remove_lines()
                for of_ray in (RAY_CHECKPOINT, PARQUET):
                    shutil.rmtree(folder / of_ray, ignore_errors=True)
                write_json(self._unfinished, began_with)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def earlier(self) -> Iterator[dict[str, Any]]:
        """The lines that are there. The first that is damaged, such as half a line, and all after it are cut off."""
        whole = 0
        with self._path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line) if line.endswith(b"\n") else None
                except (ValueError, RecursionError):
                    record = None
                if not _is_record(record):
                    break
                whole += len(line)
                yield record
        self._file.truncate(whole)

    def remove_lines(self) -> None:
        self._file.truncate(0)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a line, which a killed process leaves behind."""
        # A byte of a file's name that is not UTF-8 is a lone surrogate in Python, and \udcf6 as JSON writes it.
        self._file.write((json_text(record) + "\n").encode("utf-8", "backslashreplace"))
        if time.monotonic() - self._synced > _SYNCED_EVERY_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def records(self) -> Iterator[dict[str, Any]]:
        """All lines."""
        with self._path.open("rb") as lines:
            yield from map(json.loads, lines)

    def finish(self) -> None:
        """From now on the run is finished."""
        os.fsync(self._file.fileno())
        self._unfinished.unlink()
        shutil.rmtree(self._folder / RAY_CHECKPOINT, ignore_errors=True)

    def close(self) -> None:
        self._file.close()


def _is_record(record: Any) -> TypeGuard[dict[str, Any]]:
    """Of an image, as `bulk` writes them."""
    if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):
        return False
    if not all(isinstance(record.get(kind), str | None) for kind in ("drawing", "attention")):
        return False
    if "error" in record:
        return isinstance(record["error"], str)
    if not {"id", "drawing"} <= record.keys() or not all(type(record.get(side)) is int for side in ("width", "height")):
        return False
    if "top5" in record:
        best = record["top5"]
        return bool(best) and _are(best, lambda each: isinstance(each[0], str) and _is_score(each[1]))
    return _are(record.get("detections"), lambda each: type(each["category_id"]) is int and _is_score(each["score"]))


def _are(values: Any, fits: Callable[[Any], bool]) -> bool:
    try:
        return isinstance(values, list) and all(map(fits, values))
    except (LookupError, TypeError, ValueError):  # of another shape
        return False


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def check_unfinished(folder: Path, began_with: Mapping[str, Any]) -> bool:
    """Whether there is a run in `folder` that was stopped and can go on.

    Raises:
        InputError: it was of another network, or with other options.
    """
    lines, unfinished = folder / LINES, folder / UNFINISHED
    has_begun = (lines.is_file() and lines.stat().st_size > 0) or next(committed(folder), None) is not None
    if not (unfinished.is_file() and has_begun):
        return False
    wanted = json.loads(json.dumps(began_with))
    try:
        before = read_json(unfinished)
    except (OSError, ValueError):
        before = {}
    if not isinstance(before, dict):
        before = {}
    before.setdefault("engine", "plain")
    others = [key for key in wanted if before.get(key) != wanted[key]]
    if "engine" in others:  # which decides what else is noted
        others = ["engine"]
    if others:
        changed = ", ".join(
            key if isinstance(wanted[key], dict) or key in _DIGESTS else f"{key} {before.get(key)}, now {wanted[key]}"
            for key in others
        )
        raise InputError(
            f"{folder} has a run that was stopped, and began with another {changed}; call it as it was called to go "
            f"on, name another --out, or remove {unfinished} to begin anew"
        )
    return True


def check_replaced(folder: Path, files: Sequence[Path]) -> None:
    """Raises `InputError` where the run in `folder` is finished, and has predictions of an image that is not of `files`
    (in which tars may be), or where files there that a run writes are of somebody else: they would be lost."""
    foreign = _not_ours(folder)
    if foreign is not None:
        raise InputError(
            f"{folder / foreign} was not written by predict, which would replace it; name another --out, or move it"
        )
    other = _not_made_anew(folder, files)
    if other is not None:
        raise InputError(
            f"{folder} has finished predictions of other images, such as {printable(other)}, which would be lost; name "
            f"another --out, or remove {folder / LINES} if nobody needs them"
        )


def free_folder(folder: Path, files: Sequence[Path]) -> Path:
    """`folder`, or the first of FOLDER-2, FOLDER-3, ... in which nothing would be lost (`check_replaced`)."""
    return next(
        name
        for name in chain([folder], _numbered(folder))
        if _not_ours(name) is None and _not_made_anew(name, files) is None
    )


def without_numbered(files: Sequence[Path], folder: Path) -> list[Path]:
    """Of the images those that do not lie, as drawings, in what `free_folder` gave earlier."""
    earlier = {name.resolve() for name in takewhile(lambda name: (name / LINES).is_file(), _numbered(folder))}
    return [file for file in files if not earlier & set(file.resolve().parents)] if earlier else list(files)


def _numbered(folder: Path) -> Iterator[Path]:
    return (folder.with_name(f"{folder.name}-{number}") for number in count(2))


def _not_ours(folder: Path) -> str | None:
    """What has the name of a file that a run writes, and is none: of an evaluation, of a person."""
    if (folder / UNFINISHED).is_file():
        return None
    if (folder / LINES).is_file() and (folder / LINES).stat().st_size:
        with open_file(folder / LINES) as lines:
            try:
                return None if _is_record(json.loads(lines.readline())) else LINES
            except (ValueError, RecursionError):
                return LINES
    if not (folder / IMAGES).is_file():
        return PREDICTIONS if (folder / PREDICTIONS).is_file() else None
    try:
        content = read_json(folder / IMAGES)
    except (OSError, ValueError):
        return IMAGES
    made = isinstance(content, dict) and {"images", "categories"} <= content.keys() and "annotations" not in content
    return None if made else IMAGES  # of a run whose lines somebody has removed, because nobody needs them


def _not_made_anew(folder: Path, files: Sequence[Path]) -> str | None:
    is_finished = (folder / IMAGES).is_file() and (folder / LINES).is_file() and not (folder / UNFINISHED).is_file()
    if not is_finished:
        return None
    names = {file.as_posix() for file in files}
    tars = tuple(f"{name}/" for name in names if is_tar(name))
    with open_file(folder / LINES) as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if _is_record(record) and not (record["file_name"] in names or record["file_name"].startswith(tars)):
                return record["file_name"]
    return None


def committed(folder: Path) -> Iterator[Path]:
    """Ray's notes of what a run in `folder` has predicted: Parquet files of names. Those of what is being written are
    called .pending.parquet until it is."""
    files = (folder / RAY_CHECKPOINT).glob("*.parquet")
    return (file for file in files if not file.name.endswith(".pending.parquet"))


def _lock(file: BinaryIO, folder: Path) -> None:
    """Two processes would write every line twice. The system unlocks what a process leaves, also a killed one."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another process is predicting into {folder}; wait for it, or name another --out") from None
    except OSError:  # some network file systems cannot
        return
