"""Position tables taken to another grid size, with no Python branch on the size.

Without a branch the same graph serves every size under compilation and export; at the built size it is the identity,
to the bit. Two policies, by what a table entry is taken to mean:

* `interpolate`: an entry is a share of the map. The whole table is stretched over the new range of offsets, as in MViT
  and detectron2. Right when the same image is seen at another resolution.
* `offset`: an entry is a distance in cells. The same offset keeps the same entry, and offsets beyond the table take its
  end. Right when the image grows and its objects do not.
"""

from typing import get_args

import torch
from torch import Tensor

from botformer.errors import unknown
from botformer.recipes.model_options import TablePolicy


def resample(table: Tensor, length: int, policy: TablePolicy, centred: bool) -> Tensor:
    """Take `table` (L, D) to (length, D). `centred`: entry L // 2 is offset zero and stays in the centre."""
    if policy not in get_args(TablePolicy):
        raise unknown("table policy", policy, get_args(TablePolicy))
    L = table.shape[0]
    i = torch.arange(length, device=table.device)
    if policy == "offset":
        return table[(i + (L - length) // 2 if centred else i).clamp(0, L - 1)]
    # Where entry i of the new table lies in the old one, (i + 1/2) L / length - 1/2, in exact integer arithmetic: a
    # rounding error here would break the identity at the built size.
    numerator = ((2 * i + 1) * L - length).clamp(0, 2 * length * (L - 1))
    lower = numerator // (2 * length)
    fraction = ((numerator - lower * (2 * length)).to(table.dtype) / (2 * length))[:, None]
    return table[lower] * (1 - fraction) + table[(lower + 1).clamp(max=L - 1)] * fraction


def resize_table(table: Tensor, size: int, policy: TablePolicy = "interpolate") -> Tensor:
    """A relative table (2L-1, D) taken to a map `size` cells long: (2 size - 1, D). Offset zero stays offset zero."""
    return resample(table, 2 * size - 1, policy, centred=True)


def resize_absolute_table(table: Tensor, size: int, policy: TablePolicy = "interpolate") -> Tensor:
    """An absolute table (L, D), one entry a row or column, taken to a map `size` cells long: (size, D)."""
    return resample(table, size, policy, centred=False)
