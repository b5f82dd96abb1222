"""COCO's run-length encoding, compressed form: `{"size": [height, width], "counts": str}`.

`botformer.run_lengths` has the string.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from botformer import run_lengths


def encode_window(window: Tensor, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """As `run_lengths.encode_window`, of a tensor."""
    return run_lengths.encode_window(window.cpu().numpy(), corner, size)


def encode(mask: Tensor) -> dict[str, Any]:
    """A bool mask (height, width)."""
    return encode_window(mask, (0, 0), (mask.shape[0], mask.shape[1]))


def decode(rle: dict[str, Any]) -> Tensor:
    """-> (height, width) bool."""
    height, width = rle["size"]
    counts = run_lengths.expand(rle["counts"])
    inside = np.arange(len(counts)) % 2 == 1
    return torch.from_numpy(np.repeat(inside, counts).reshape(width, height).T.copy())
