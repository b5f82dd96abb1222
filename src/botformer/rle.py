"""COCO's run-length encoding of masks: pixels outside, inside, outside, ..., column by column, as counts or a string.

The string holds each count, from the fourth on as the difference from the one two before it, in groups of five bits per
character, lowest bits first.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def decode_counts(counts: str | list[int]) -> np.ndarray:
    """COCO's string, or a list of counts -> int64 (runs,): pixels outside, inside, outside, ...

    Raises ValueError for a string that is not a run-length encoding.
    """
    if not isinstance(counts, str):
        return np.asarray(counts, dtype=np.int64)
    groups = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if not len(groups):
        return groups
    if groups.min() < 0 or groups.max() > 63:
        raise ValueError("holds characters that no run-length encoding has")
    ends = np.flatnonzero(groups < 32)  # bit 5 is set where more groups of this number follow
    if not len(ends) or ends[-1] != len(groups) - 1:
        raise ValueError("stops in the middle of a number")
    starts = np.append(0, ends[:-1] + 1)
    if (ends - starts).max() > 10:
        raise ValueError("holds a number that is too large")
    index = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((groups & 31) << (5 * index), starts)
    values -= (groups[ends] >> 4 & 1) << (5 * (ends - starts + 1))  # bit 4 of the last group: the sign
    # From the fourth number on, each is stored as the difference from the one two before it.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def encode_window(window: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """A bool window (rows, columns) at (top, left) of an image of (height, width) that is empty elsewhere.

    The whole image is never built. Returns COCO's compressed form, {"size": [height, width], "counts": str}.
    """
    (height, width), (top, left) = size, corner
    columns = np.ascontiguousarray(window.astype(np.int8).T)
    edges = np.diff(np.pad(columns, ((0, 0), (1, 1))), axis=1)
    first, last = (
        (column + left) * height + row + top for column, row in (np.nonzero(edges == 1), np.nonzero(edges == -1))
    )
    # A run that reaches the bottom of a column may continue at the top of the next.
    apart = last[:-1] != first[1:]
    first, last = first[np.append(True, apart)[: len(first)]], last[np.append(apart, True)[: len(last)]]
    bounds = np.concatenate([[0], np.stack([first, last], 1).reshape(-1), [height * width]])
    counts = np.diff(bounds)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": encode_counts(counts.tolist())}


def encode(mask: np.ndarray) -> dict[str, Any]:
    """A bool mask (height, width) -> COCO's compressed form, as `encode_window`."""
    return encode_window(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def decode(encoded: Mapping[str, Any]) -> np.ndarray:
    """The reverse of `encode`: bool (height, width)."""
    height, width = encoded["size"]
    counts = decode_counts(encoded["counts"])
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T.copy()


def decode_window(encoded: Mapping[str, Any]) -> tuple[np.ndarray, tuple[int, int]]:
    """The part of a mask around what is inside, bool (rows, columns), and where it is, (top, left): the reverse of
    `encode_window`. Of a mask without a pixel inside, (0, 0) pixels. The whole image is never built."""
    height, _ = encoded["size"]
    ends = np.cumsum(decode_counts(encoded["counts"]))
    if len(ends) < 2 or ends[0] == ends[-1]:
        return np.zeros((0, 0), dtype=bool), (0, 0)
    left, right = int(ends[0]) // height, (int(ends[1::2][-1]) - 1) // height + 1
    bounds = np.clip(ends, left * height, right * height)
    counts = np.diff(bounds, prepend=left * height)
    columns = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    rest = np.zeros((right - left) * height - len(columns), dtype=bool)
    columns = np.concatenate([columns, rest]).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return columns[:, top:bottom].T.copy(), (top, left)


def encode_counts(counts: Sequence[int]) -> str:
    """Counts as COCO's string; the reverse of `decode_counts`."""
    return "".join(_characters(count - counts[index - 2] if index > 2 else count) for index, count in enumerate(counts))


def _characters(number: int) -> str:
    """Groups of five bits, lowest first; bit 5 says that more follow, bit 4 of the last is the sign."""
    text = ""
    while True:
        group, number = number & 31, number >> 5
        last = number == (-1 if group & 16 else 0)
        text += chr(48 + group + (0 if last else 32))
        if last:
            return text
