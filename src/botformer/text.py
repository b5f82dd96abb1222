"""Lists, names, sizes and durations in messages."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def and_more(items: Sequence[Any], most: int, separator: str = ", ") -> str:
    """The first `most` items, and how many more there are: "a, b and 3 more". Nothing for no items.

    With another separator than a comma it also stands before the count, as on a line of its own.
    """
    shown = separator.join(str(item) for item in items[:most])
    if len(items) <= most:
        return shown
    return f"{shown}{' ' if separator == ', ' else separator}and {len(items) - most} more"


def counted(counts: Mapping[str, int], most: int) -> str:
    """The most frequent first: "12 .heic, 3 .txt and 2 more"."""
    ordered = sorted(Counter(counts).items(), key=lambda item: (-item[1], item[0]))
    return and_more([f"{number} {what}" for what, number in ordered], most)


def printable(name: str) -> str:
    r"""A name of the file system as every screen and file can hold it: bytes that are not UTF-8, which Python carries
    as lone surrogates, become \xf6, and so do control characters."""
    raw = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in raw)


def duration(seconds: float) -> str:
    """In the unit that needs two or three digits: "95 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def readable_bytes(number: float) -> str:
    """In the unit that needs one to three digits before the point: "512 B", "1.5 MB", "260 MB"."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 999.5 or unit == "TB":
            return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    raise AssertionError
