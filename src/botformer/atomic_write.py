"""Writing so that a crash or a power cut leaves the old content or the new, never half of one.

What is being written has a temporary name beside its own, ".NAME.<8 hexadecimal digits>.partial", which no earlier
leftover can block. It takes its own name once it is on the disk, and is removed when anything goes wrong before.
"""

import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{8}\.partial|\.step-\d+\.partial")  # the second: of older versions
_FEW_FILES = 100


def write_text(path: Path, text: str) -> None:
    """Replace the file at `path` in one step, and only once its content is on the disk."""
    with atomic_file(path) as unfinished:
        # A byte of a file's name that is not UTF-8 is a lone surrogate in Python, and \udcf6 as JSON writes it.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """`content` as JSON, like `write_text`. `indent` None: all of it on one line."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False) + "\n")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields an empty temporary file to write to, which then replaces `path`. Its folder must be there.

    Permissions are those of any new file, whatever wrote the content (safetensors makes its files private).

    Raises `OSError` where it cannot be written, and where a pipe or a device such as /dev/stdout has that name.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    if path.exists() and not (path.is_file() or path.is_dir()):  # root could, and then /dev/null would be a file
        raise OSError(errno.EINVAL, "is a pipe, a socket or a device, which no file may replace", str(path))
    unfinished = _temporary(path)
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = stat.S_IMODE(unfinished.stat().st_mode)
        yield unfinished
        unfinished.chmod(mode)
        _sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder to fill, which then becomes `path`. Its parent must be there.

    Raises `OSError` at the end when `path` is there by then and is not an empty folder; that one is kept.
    """
    path = Path(os.path.realpath(path))
    unfinished = _temporary(path)
    try:
        unfinished.mkdir()
        yield unfinished
        _sync_content(unfinished)
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder`. Nobody else may be writing there."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _temporary(path: Path) -> Path:
    # A file's name has 255 bytes at most: of a long one only the beginning is kept.
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.partial")


def _sync(path: Path) -> None:
    """Wait until the file, or the list of names in the folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync a folder
            raise


def _sync_content(folder: Path) -> None:
    """Wait until everything in the folder is on the disk."""
    paths = list(folder.rglob("*"))
    if len(paths) > _FEW_FILES and hasattr(os, "sync"):
        os.sync()  # one by one, 40,000 images would take a minute
        return
    for path in paths:
        if path.is_dir():
            _sync_folder(path)
        elif path.is_file():
            _sync(path)
    _sync_folder(folder)
