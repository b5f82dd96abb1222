"""COCO's run-length encoding, compressed form: `{"size": [height, width], "counts": str}`.

`botformer.run_lengths` has the string.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from botformer import run_lengths


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
    return {"size": [height, width], "counts": run_lengths.compress(counts.tolist())}


def encode(mask: Tensor) -> dict[str, Any]:
    """A bool mask (height, width)."""
    return encode_window(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def decode(rle: dict[str, Any]) -> Tensor:
    """-> (height, width) bool."""
    height, width = rle["size"]
    counts = run_lengths.expand(rle["counts"])
    inside = np.arange(len(counts)) % 2 == 1
    return torch.from_numpy(np.repeat(inside, counts).reshape(width, height).T.copy())
