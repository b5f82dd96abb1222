"""The attention weights of a network's attention layers: of one query position, or passed back from some positions."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from botformer.backbone.blocks import Bottleneck, NonLocal
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError

_LOGITS_AT_ONCE = 2**23
"""Of a part of the attention matrix that is in memory at a time: 32 MiB in float32."""


@torch.no_grad()
def attention_maps(
    model: nn.Module, images: Tensor | Sequence[Tensor], query: tuple[float, float]
) -> list[tuple[str, Tensor]]:
    """Name and attention (B, heads, H, W) of each `MHSA2d`, in the order they run.

    Args:
        model: a module with such layers, called with `images`: (B, 3, h, w), or a detector's list.
        query: (y, x) of the query position as fractions of the image, padding included: (0.5, 0.5) is the centre.

    Raises:
        InputError: a query outside the image.
    """
    if not all(0 <= fraction <= 1 for fraction in query):
        raise InputError(f"query must be two fractions of the image between 0 and 1 (y, x), got {query}")
    maps = []
    for layer in attention_layers(model, lambda: model(images), (MHSA2d,)):
        assert isinstance(layer.module, MHSA2d)
        height, width = layer.x.shape[2:]
        cell = (min(int(query[0] * height), height - 1), min(int(query[1] * width), width - 1))
        maps.append((layer.name, layer.module.attention_from(layer.x, cell)))
    return maps


@dataclass(frozen=True)
class AttentionLayer:
    """An attention layer and the map that it saw."""

    name: str
    """Of the module in the network."""
    module: MHSA2d | NonLocal
    x: Tensor
    """(B, C, H, W), what the layer was called with."""
    stride_px: int | None
    """Pixels of the network's input between cells of the map; None for a layer outside the blocks of this package."""


class AttentionModule(NamedTuple):
    """An attention layer of a network, before any image."""

    name: str
    """Of the module in the network."""
    module: MHSA2d | NonLocal
    stride_px: int | None
    """As of an `AttentionLayer`."""

    @property
    def heads(self) -> int:
        return self.module.heads if isinstance(self.module, MHSA2d) else 1


_KINDS: tuple[type[nn.Module], ...] = (MHSA2d, NonLocal)


def attention_modules(model: nn.Module, kinds: tuple[type[nn.Module], ...] = _KINDS) -> list[AttentionModule]:
    """The attention layers of a network, in the order in which it names them."""
    strides = {block.conv2: block.key_stride for block in model.modules() if isinstance(block, Bottleneck)}
    found = []
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            assert isinstance(module, MHSA2d | NonLocal)
            stride = module.key_stride if isinstance(module, NonLocal) else strides.get(module)
            found.append(AttentionModule(name, module, stride))
    return found


@torch.no_grad()
def attention_layers(
    model: nn.Module, run: Callable[[], object], kinds: tuple[type[nn.Module], ...] = _KINDS
) -> list[AttentionLayer]:
    """The attention layers that `run` calls, in the order they run. Other threads may use the model meanwhile."""
    layers: list[AttentionLayer] = []
    modules = {each.module: each for each in attention_modules(model, kinds)}
    thread = threading.get_ident()

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, MHSA2d | NonLocal)
        if threading.get_ident() == thread:
            layers.append(AttentionLayer(modules[module].name, module, inputs[0], modules[module].stride_px))

    hooks = [module.register_forward_pre_hook(record) for module in modules]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return layers


@dataclass(frozen=True)
class QueryLogits:
    """The logits of one query position, by term: (B, heads, H, W) each, None for a term that the layer lacks."""

    content: Tensor | None
    position: Tensor | None

    def total(self) -> Tensor:
        terms = [term for term in (self.content, self.position) if term is not None]
        return torch.stack(terms).sum(0)


@torch.no_grad()
def logits_of_query(layer: AttentionLayer, query_cell: tuple[int, int]) -> QueryLogits:
    """The logits of the query at the cell (y, x) over all keys, in O(HW) memory."""
    y, x = query_cell
    terms = {
        name: torch.stack(
            [torch.einsum("bnd,bnuvd->bnuv", q[:, :, y, x], k) for q, k in zip(queries, keys, strict=True)]
        ).sum(0)
        for name, (queries, keys) in layer.module.logit_terms(layer.x).items()
    }
    return QueryLogits(terms.get("content"), terms.get("position"))


@torch.no_grad()
def pass_back(layer: AttentionLayer, weights: Tensor, cells: tuple[int, int]) -> Tensor:
    """`weights` of query positions -> what they look at, weights times the attention matrix, heads averaged.

    Rows of the matrix are computed some at a time: O(HW) memory, whatever the size.

    Args:
        weights: (height, width) of the first image's positions.
        cells: (height, width) of the part of the map, from the top left, that is the image; the rest is padding, which
            is no key.

    Returns:
        (height, width) over the keys, with the sum that `weights` have.
    """
    height, width = cells
    terms = layer.module.logit_terms(layer.x[:1]).values()
    queries, keys = (
        torch.cat([part[0, :, :height, :width].flatten(1, 2) for parts in side for part in parts], -1)
        for side in zip(*terms, strict=True)
    )  # (heads, height * width, widths of all terms)
    seen = torch.zeros_like(weights, dtype=queries.dtype).flatten()
    rows = max(1, _LOGITS_AT_ONCE // (keys.shape[0] * keys.shape[1]))
    for some, weight in zip(queries.split(rows, 1), weights.to(queries.dtype).flatten().split(rows), strict=True):
        seen += (weight @ (some @ keys.mT).softmax(-1)).mean(0)
    return seen.unflatten(0, cells)
