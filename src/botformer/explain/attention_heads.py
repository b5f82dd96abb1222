"""Where every head of every attention layer looks from one position, and which term of the logits makes it look."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from botformer.backbone.attention_maps import AttentionLayer, logits_of_query
from botformer.explain.forward_pass import Network, cell_of, image_cells, layers_of, stride_of


@dataclass(frozen=True)
class LayerHeads:
    """The heads of one attention layer, seen from one query position. Keys are the image's cells, without padding."""

    name: str
    """Of the module in the network."""
    stride_px: int
    """Pixels of the network's input between cells."""
    query_cell: tuple[int, int]
    """(y, x) of the query among the cells."""
    content: np.ndarray | None
    """(heads, H, W): logits by content, q.k; None where the position kind has no such term (position_only)."""
    position: np.ndarray | None
    """(heads, H, W): logits by position, q.r in relative attention; None for layers without positions."""

    @property
    def attention(self) -> np.ndarray:
        """(heads, H, W): the softmax over all cells of the sum of both terms; each head sums to 1."""
        terms = [term for term in (self.content, self.position) if term is not None]
        return _softmax(np.sum(terms, 0))

    @property
    def content_alone(self) -> np.ndarray | None:
        """(heads, H, W): the same without the position term."""
        return None if self.content is None else _softmax(self.content)

    @property
    def position_alone(self) -> np.ndarray | None:
        """(heads, H, W): the same without the content term."""
        return None if self.position is None else _softmax(self.position)

    @property
    def position_fraction(self) -> np.ndarray:
        """(heads,): variance over the cells of the logits by position, of that of both terms; 0 where both are flat."""
        of_position, of_content = (
            np.zeros(self.heads) if term is None else term.var((1, 2)) for term in (self.position, self.content)
        )
        total = of_position + of_content
        return np.divide(of_position, total, out=np.zeros_like(total), where=total > 0)

    @property
    def heads(self) -> int:
        """How many there are."""
        return len(next(term for term in (self.content, self.position) if term is not None))


def attention_heads(model: Network, pixels: Tensor, query_yx: tuple[float, float]) -> list[LayerHeads]:
    """Every attention layer of a classifier or detector, in the order they run; O(HW) memory.

    What a layer without a padding mask would spend on the padding beside a detector's image is left out: a softmax over
    fewer cells is the same one, scaled.

    Args:
        model: a classifier or a detector, in any mode and on any device; nothing of it is changed.
        pixels: (C, h, w) uint8 or floats in 0..1, as the network sees it (see `see`).
        query_yx: the query position in pixels of `pixels`.

    Raises:
        InputError: no attention layers, a query outside the image, or an image that does not fit the network.
    """
    return heads_of_query(layers_of(model, pixels), pixels, query_yx)


def heads_of_query(layers: Sequence[AttentionLayer], pixels: Tensor, query_yx: tuple[float, float]) -> list[LayerHeads]:
    """As `attention_heads`, of layers that saw `pixels` already, alone."""
    found = []
    for layer in layers:
        stride = stride_of(layer)
        cell = cell_of(pixels, stride, query_yx)
        height, width = image_cells(pixels, stride)
        logits = logits_of_query(layer, cell)
        content, position = (
            None if term is None else _array(term[0, :, :height, :width]) for term in (logits.content, logits.position)
        )
        found.append(LayerHeads(layer.name, stride, cell, content, position))
    return found


def _array(term: Tensor) -> np.ndarray:
    return term.to(torch.promote_types(term.dtype, torch.float32)).cpu().numpy()


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last two dimensions."""
    weights = np.exp(logits - logits.max((-2, -1), keepdims=True))
    return weights / weights.sum((-2, -1), keepdims=True)
