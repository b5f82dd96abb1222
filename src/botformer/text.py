"""Lists in messages."""

from collections.abc import Sequence
from typing import Any


def and_more(items: Sequence[Any], most: int, separator: str = ", ") -> str:
    """The first `most` items, and how many more there are: "a, b and 3 more". Nothing for no items.

    With another separator than a comma it also stands before the count, as on a line of its own.
    """
    shown = separator.join(str(item) for item in items[:most])
    if len(items) <= most:
        return shown
    return f"{shown}{' ' if separator == ', ' else separator}and {len(items) - most} more"
