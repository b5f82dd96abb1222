"""Text files and paths as exporters on other machines wrote them."""

import codecs
import logging
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from botformer.errors import InputError
from botformer.read_file import read_bytes
from botformer.text import and_more, printable

log = logging.getLogger("botformer.data")

SPLITS = ("train", "validation", "valid", "val", "test", "training", "dev", "testing")
"""What splits are called, in any case."""


def read_lines(file: Path) -> list[str]:
    """The lines of a text file, without their ends. Raises as `read_text`."""
    # Not `splitlines`, which also cuts at marks that a name may hold.
    return read_text(file).split("\n")


def read_text(file: Path) -> str:
    """A text file with the line ends of Unix: UTF-8, UTF-16 with its mark, else Windows' western code page.

    Raises InputError where the file cannot be read or is no text.
    """
    try:
        content = read_bytes(file)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", errors="replace")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", errors="replace")
            log.info("%s is not UTF-8 and is read as Windows' western code page (cp1252)", file)
    if "\0" in text:
        raise InputError(f"{file} is no text: it has bytes of value 0")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def find_exported(path: str, bases: Sequence[Path]) -> Path | None:
    """The file or folder that `path` means, written by another system or on another machine, or None.

    It is taken as it stands, then below each of `bases` in turn; then without its first part, without the first two,
    and so on, but never without a part that names a split: "../train/images", "data/obj_train_data/1.jpg",
    "C:/set/images/train", "/home/somebody/set/images/train". Either slash will do. Links are not resolved.
    """
    for spelling in dict.fromkeys((path, path.replace("\\", "/"), *_otherwise_encoded(path))):
        for base in bases:  # an absolute path stays itself
            candidate = Path(os.path.normpath(base / spelling))
            if os.path.exists(candidate):
                return candidate
    parts = PureWindowsPath(path).parts  # either slash separates
    for start, part in enumerate(parts):
        rest = [each for each in parts[start:] if each not in ("..", ".") and not each.endswith((":", "\\", "/"))]
        for base in bases:
            candidate = base.joinpath(*rest)
            if rest and os.path.exists(candidate):
                return candidate
        if part.lower().rstrip("0123456789") in SPLITS:
            return None
    return None


def _otherwise_encoded(path: str) -> list[str]:
    """As macOS and as others write accents, and as a name in bytes of Windows' western code page."""
    if path.isascii():
        return []
    return [
        unicodedata.normalize("NFC", path),
        unicodedata.normalize("NFD", path),
        os.fsdecode(path.encode("cp1252", errors="ignore")),
    ]


def log_left_out(where: str, names: Sequence[str], what: str) -> None:
    """Say how many there are, and which the first are; nothing where there are none."""
    if names:
        log.warning("%s: %d %s, such as %s", where, len(names), what, and_more([printable(name) for name in names], 3))
