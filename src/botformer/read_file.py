"""Reading files that anybody may have written: no wait for a pipe, no device without an end, no endless nesting."""

import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from botformer.errors import InputError

_DEEPEST = 100
"""Levels of JSON: no file of ours has ten, and what walks through thousands of them overflows the stack."""


def open_file(path: str | os.PathLike[str]) -> BufferedReader:
    """To be closed by the caller. Raises as `demand_file`, and OSError where it cannot be opened."""
    demand_file(path)
    return open(path, "rb")


def demand_file(path: str | os.PathLike[str]) -> None:
    """Before something else opens `path`: opening a pipe waits until somebody writes into it.

    Raises:
        OSError: nothing is there, or a folder, a pipe, a socket or a device.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is a pipe, a socket or a device, not a file", os.fspath(path))


def read_bytes(path: Path) -> bytes:
    """Raises OSError."""
    with open_file(path) as file:
        return file.read()


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """With the line ends of Unix. Raises OSError, or ValueError where the bytes are no such text."""
    return read_bytes(path).decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, encoding: str = "utf-8") -> Any:
    """What a small JSON file holds. Raises OSError, or ValueError where it is no JSON or is nested too deep."""
    return parse_json(read_text(path, encoding))


def parse_json(text: str | bytes) -> Any:
    """Raises ValueError where it is no JSON, or is nested too deep."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    level = _containers([content])
    for _ in range(_DEEPEST):
        level = [inner for each in level for inner in _containers(each.values() if isinstance(each, dict) else each)]
        if not level:
            return content
    raise ValueError(f"nested more than {_DEEPEST} deep")


def _containers(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if isinstance(value, dict | list)]


def at_home(path: str | os.PathLike[str]) -> Path:
    """A ~ at the beginning is a home directory, unless something here is called so, or nobody has that home."""
    path = Path(path)
    if os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:
        return path


@contextmanager
def understood(where: object, advice: str) -> Iterator[None]:
    """What reads a file's content field by field stands inside: content of another shape becomes an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{where} holds something else than botformer writes there ({type(error).__name__}: {str(error)[:200]}); "
            f"{advice}"
        ) from error
