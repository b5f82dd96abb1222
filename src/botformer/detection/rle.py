"""COCO's run-length encoding, compressed form: `{"size": [height, width], "counts": str}`.

Pixels are counted column by column; counts alternate between outside and inside, starting outside. The string holds
each count less the one two before it, five bits a character, lowest first.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor


def encode_window(window: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """A bool window (rows, columns) at (top, left) of a picture of (height, width) that is empty elsewhere.

    The picture itself is never made.
    """
    (height, width), (top, left) = size, corner
    columns = np.ascontiguousarray(window.cpu().numpy().astype(np.int8).T)
    edges = np.diff(np.pad(columns, ((0, 0), (1, 1))), axis=1)
    first, last = (
        (column + left) * height + row + top for column, row in (np.nonzero(edges == 1), np.nonzero(edges == -1))
    )
    # A run that reaches the foot of a column may go on at the head of the next.
    apart = last[:-1] != first[1:]
    first, last = first[np.append(True, apart)[: len(first)]], last[np.append(apart, True)[: len(last)]]
    bounds = np.concatenate([[0], np.stack([first, last], 1).reshape(-1), [height * width]])
    counts = np.diff(bounds)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [height, width], "counts": _compress(counts.tolist())}


def encode(mask: Tensor) -> dict[str, Any]:
    """A bool mask (height, width)."""
    return encode_window(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def decode(rle: dict[str, Any]) -> Tensor:
    """-> (height, width) bool."""
    height, width = rle["size"]
    counts = _expand(rle["counts"])
    inside = np.arange(len(counts)) % 2 == 1
    return torch.from_numpy(np.repeat(inside, counts).reshape(width, height).T.copy())


def _compress(counts: list[int]) -> str:
    characters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            characters.append(chr(48 + group + 32 * more))
            if not more:
                break
    return "".join(characters)


def _expand(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return counts
