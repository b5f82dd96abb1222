"""The position tables of a network as maps: what they add to the logits, and which of their entries are alike."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from botformer.backbone.mhsa import MHSA2d
from botformer.explain.forward_pass import Network, image_cells, layers_of, stride_of
from botformer.recipes.model_options import Position, TablePolicy


@dataclass(frozen=True)
class LayerPositions:
    """The position tables of one attention layer at the size of an image's map of H x W cells."""

    name: str
    """Of the module in the network."""
    kind: Position
    """What the attention knows about positions; see `MHSA2d`."""
    stride_px: int
    """Pixels of the network's input between cells."""
    tables: dict[str, np.ndarray]
    """`rel_height` (2H-1, D) and `rel_width` (2W-1, D), offset 0 in the middle; or `abs_height` (H, D) and `abs_width`
    (W, D), for each head in the listing: (H, heads * D)."""
    built_cells: tuple[int, int]
    """(height, width) of the map that the tables were made for; for another one they are resized by `policy`."""
    policy: TablePolicy
    """"interpolate": stretched; "offset": kept, and what lies beyond the table gets its last entry."""
    logits: np.ndarray
    """What the positions add to the logits of the image's mean query: (heads, 2H-1, 2W-1) over offsets (dy, dx) from
    the query to the key, relative; (heads, H, W) over the key's positions, absolute; over the query's in the listing,
    which multiplies its table with the keys' q."""

    @property
    def is_relative(self) -> bool:
        """Whether maps are over offsets, from -(H-1) to H-1 and from -(W-1) to W-1."""
        return self.kind in ("relative", "position_only")

    def norms(self, table: str) -> np.ndarray:
        """(L,): the length of each entry of a table: how much it can add to a logit."""
        return np.linalg.norm(self.tables[table], axis=1)

    def similarity(self, table: str) -> np.ndarray:
        """(L, L): the cosine between every two entries of a table; 0 with an entry of zeros."""
        entries, norms = self.tables[table], self.norms(table)
        unit = entries / np.where(norms > 0, norms, 1)[:, None]
        return np.clip(unit @ unit.T, -1, 1)


def position_maps(model: Network, pixels: Tensor) -> list[LayerPositions]:
    """Of every attention layer that has position tables, in the order they run; none for layers of content alone.

    Args:
        model: a classifier or a detector, in any mode and on any device; nothing of it is changed.
        pixels: (C, h, w) uint8 or floats in 0..1, as the network sees it (see `see`).

    Raises:
        InputError: no attention layers, or an image that does not fit the network.
    """
    found = []
    for layer in layers_of(model, pixels):
        if not isinstance(layer.module, MHSA2d) or not layer.module.position_tables():
            continue
        stride = stride_of(layer)
        height, width = image_cells(pixels, stride)
        with torch.no_grad():
            query = layer.module.queries(layer.x)[0, :, :height, :width].mean((1, 2))  # (heads, D)
            # The tables of the whole map, of which the image may be a part.
            tables = layer.module.tables_for(*layer.x.shape[2:])
            cut = {name: _cut(table, name, layer.x.shape[2:], (height, width)) for name, table in tables.items()}
            rows, columns = (_products(query, table) for table in cut.values())
            logits = rows[:, :, None] + columns[:, None, :]
        arrays = {name: _array(table) for name, table in cut.items()}
        module = layer.module
        built = (int(module.size[0]), int(module.size[1]))
        found.append(LayerPositions(layer.name, module.position, stride, arrays, built, module.tables, _array(logits)))
    return found


def _cut(table: Tensor, name: str, whole: torch.Size, cells: tuple[int, int]) -> Tensor:
    """The entries that positions within the image use."""
    size, part = (whole[0], cells[0]) if name.endswith("height") else (whole[1], cells[1])
    return table[size - part : size + part - 1] if name.startswith("rel_") else table[:part]


def _products(query: Tensor, table: Tensor) -> Tensor:
    """Queries (heads, D) and a table (L, D), or (L, heads * D): (heads, L)."""
    of_heads = table.unflatten(1, (-1, query.shape[1])).expand(-1, len(query), -1)
    return torch.einsum("nd,lnd->nl", query, of_heads.to(query.dtype))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).cpu().numpy()
