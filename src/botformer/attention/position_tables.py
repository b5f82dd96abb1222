"""Position tables resized to the map at hand, without a Python branch on the size.

Without a branch one compiled or exported graph serves every size. At the built size resizing is the identity, to the
bit. There are two policies, by what a table entry means:

* `interpolate`: an entry is a fraction of the map. The table is stretched over the new range of offsets, as in MViT and
  detectron2. Right when the same image is seen at another resolution.
* `offset`: an entry is a distance in cells. The same offset keeps the same entry, and offsets beyond the table get its
  last one. Right when the image grows and its objects do not.
"""

from typing import get_args

import torch
from torch import Tensor

from botformer.errors import unknown
from botformer.recipes.model_options import TablePolicy


def _resize(table: Tensor, length: int, policy: TablePolicy, centred: bool) -> Tensor:
    """`table` (L, D) -> (length, D). `centred`: entry L // 2 is offset zero and stays in the centre."""
    if policy not in get_args(TablePolicy):
        raise unknown("table policy", policy, get_args(TablePolicy))
    return fit_table(table, length, policy == "offset", centred)


def fit_table(table: Tensor, length: int, offset: bool, centred: bool) -> Tensor:
    """`_resize` with the policy as a bool: what TorchScript can compile."""
    L = table.shape[0]
    i = torch.arange(length, device=table.device)
    if offset:
        return table[(i + (L - length) // 2 if centred else i).clamp(0, L - 1)]
    # Where entry i of the new table lies in the old one, (i + 1/2) L / length - 1/2, in exact integer arithmetic: a
    # rounding error here would break the identity at the built size.
    numerator = ((2 * i + 1) * L - length).clamp(0, 2 * length * (L - 1))
    lower = numerator // (2 * length)
    fraction = ((numerator - lower * (2 * length)).to(table.dtype) / (2 * length))[:, None]
    return table[lower] * (1 - fraction) + table[(lower + 1).clamp(max=L - 1)] * fraction


def resize_table(table: Tensor, size: int, policy: TablePolicy = "interpolate") -> Tensor:
    """A relative table (2L-1, D), for a map `size` cells long: (2 size - 1, D). Offset zero stays in the centre."""
    return _resize(table, 2 * size - 1, policy, centred=True)


def resize_absolute_table(table: Tensor, size: int, policy: TablePolicy = "interpolate") -> Tensor:
    """An absolute table (L, D), one entry per row or column, resized for a map `size` cells long: (size, D)."""
    return _resize(table, size, policy, centred=False)
