"""MHSA2d: the attention layer that replaces a 3x3 convolution (paper Fig. 4)."""

import logging
from collections.abc import Mapping
from typing import Final, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.attention import (
    TablePolicy,
    attention_of_query,
    average_cells,
    dot_attention,
    fit_table,
    logits_by_definition,
    relative_attention_2d,
    relative_parts,
    resize_absolute_table,
    resize_table,
)
from botformer.attention.backends import check_name, forbids
from botformer.attention.operation import check_padding_mask
from botformer.errors import InputError, unknown
from botformer.recipes.check import as_whole, height_and_width
from botformer.recipes.model_options import Position

logger = logging.getLogger(__name__)

LogitTerm = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Query parts and key parts, (B, N, H, W, any) each: the logits are the sum of the dot products, pair by pair."""

# One node each in a graph of `torch.fx`, which cannot follow what depends on the size of a map.
for _function in (
    "relative_attention_2d",
    "dot_attention",
    "average_cells",
    "resize_table",
    "resize_absolute_table",
    "check_padding_mask",
):
    torch.fx.wrap(_function)


class MHSA2d(nn.Module):
    """Multi-head self-attention over a feature map: (B, C, H, W) -> (B, C, H, W), or half the size; any H and W.

    The paper's Fig. 4 shows it; it is the sum of two terms, content and position.

    Position kinds:
        relative: content and relative position, q.k + q.r (the paper's layer, the default).
        absolute: content and the absolute position of the key, q.(k + E_h[y'] + E_w[x']).
        none: content alone, q.k (as the two beside it, of the paper's ablation: Table 4, section 4.3).
        position_only: relative position alone, q.r; without a key projection.
        blog: a widely copied listing, kept so that its weights load and the difference can be shown: biased
            projections, no scaling, and q_i.k_j + r_i.q_j with r absolute, the transpose of what it should be. With
            heads=1 it is exactly the listing.

    Args:
        channels: C, in and out; a multiple of `heads`. There is no output projection.
        heads: N; the head width is D = C / N.
        size: (H, W) of the map that the position tables are made for. `tables` says how others are handled.
        position: what the attention knows about positions, one of the kinds above.
        tables: "interpolate" or "offset", see `attention.position_tables`.
        backend: of the attention, such as "auto" or "auto,-triton"; see `relative_attention_2d`.
        pool: average the result over cells of 2x2, which halves each side, rounded up; for blocks of stride 2.

    Raises:
        InputError: channels that do not divide into heads, an unknown position kind, table policy or backend.

    `torch.jit.script` compiles layers with relative tables, as the definition: with its (HW)^2 matrix.
    """

    pool: Final[bool]
    by_offset: Final[bool]

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        size: tuple[int, int] = (14, 14),
        position: Position = "relative",
        *,
        tables: TablePolicy = "interpolate",
        backend: str = "auto",
        pool: bool = False,
    ) -> None:
        super().__init__()
        if position not in get_args(Position):
            raise unknown("position kind", position, get_args(Position))
        if tables not in get_args(TablePolicy):
            raise unknown("table policy", tables, get_args(TablePolicy))
        check_name(backend)
        if position not in ("relative", "position_only") and forbids(backend, "sdpa"):
            raise InputError(f"backend {backend!r} computes relative positions; position {position!r} runs as 'sdpa'")
        if (as_whole(channels) or 0) < 1 or (as_whole(heads) or 0) < 1:
            raise InputError(f"channels and heads must be whole and at least 1, got {channels!r} and {heads!r}")
        if channels % heads:
            raise InputError(f"{channels} channels do not divide into {heads} heads; choose a divisor of {channels}")
        size = height_and_width("size", size, "cell")
        self.heads, self.size, self.backend, self.pool = heads, size, backend, pool
        self.position: Position = position
        self.tables: TablePolicy = tables
        self.by_offset = tables == "offset"
        self.qkv = nn.Conv2d(channels, (2 if position == "position_only" else 3) * channels, 1, bias=position == "blog")
        D = channels // heads
        if position in ("relative", "position_only"):
            self.rel_height = nn.Parameter(torch.empty(2 * size[0] - 1, D))
            self.rel_width = nn.Parameter(torch.empty(2 * size[1] - 1, D))
        elif position in ("absolute", "blog"):  # the listing has a table for each head
            width = channels if position == "blog" else D
            self.abs_height = nn.Parameter(torch.empty(size[0], width))
            self.abs_width = nn.Parameter(torch.empty(size[1], width))
        self.reset_parameters()
        self.register_load_state_dict_pre_hook(_adapt_state)

    def reset_parameters(self) -> None:
        """q, k, v: normal, std 0.01; tables: normal, std D**-0.5 (the authors' code passes it as the mean)."""
        nn.init.normal_(self.qkv.weight, std=0.01)
        if self.qkv.bias is not None:
            nn.init.zeros_(self.qkv.bias)
        for table in self.position_tables().values():
            nn.init.normal_(table, std=(self.qkv.in_channels // self.heads) ** -0.5)

    def position_tables(self) -> dict[str, nn.Parameter]:
        """The position tables by name, as parameters for maps of `size`; empty for "none"."""
        return dict(self.named_parameters(recurse=False))

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """`x` (B, C, H, W) -> the same shape, pooled (B, C, ceil(H/2), ceil(W/2)).

        `padding_mask` is (B, H, W) bool, True for padding, which gets no attention.
        """
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            return self._by_definition(x, padding_mask)
        else:  # noqa: RET505  (TorchScript compiles what follows an `if` without `else`)
            return self._attend(x, padding_mask)

    def _attend(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        q, k, v = self._project(x)
        if self.position in ("relative", "position_only"):
            height, width = self._tables_for(q)
            out = relative_attention_2d(
                q, k, v, height, width, padding_mask=padding_mask, pool=self.pool, backend=self.backend
            )
        else:
            check_padding_mask(padding_mask, (x.shape[0], x.shape[2], x.shape[3]))
            out = dot_attention(*self._dot_products(q, k), v, padding_mask)
            out = average_cells(out) if self.pool else out
        return out.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)  # a view of a channels_last map

    def __prepare_scriptable__(self) -> "MHSA2d":
        """Called by `torch.jit.script`."""
        if self.position not in ("relative", "position_only"):
            raise InputError(
                f"torch.jit.script compiles attention with relative positions; this layer's are {self.position!r}: use "
                "torch.jit.trace or torch.export"
            )
        return self

    def _by_definition(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """What TorchScript compiles."""
        H, W = x.shape[2], x.shape[3]
        parts = self.qkv(x).permute(0, 2, 3, 1).unflatten(3, [-1, self.heads, x.shape[1] // self.heads])
        parts = parts.permute(3, 0, 4, 1, 2, 5)  # (2 or 3, B, N, H, W, D)
        q, v = parts[0], parts[-1]
        k = parts[1] if parts.shape[0] == 3 else torch.zeros_like(q)
        height = fit_table(self.rel_height, 2 * H - 1, self.by_offset, True).to(q.dtype)
        width = fit_table(self.rel_width, 2 * W - 1, self.by_offset, True).to(q.dtype)
        logits = logits_by_definition(q, k, height, width).flatten(-2)
        if padding_mask is not None:
            logits = logits.masked_fill(padding_mask.flatten(1)[:, None, None, None], float("-inf"))
        weights = logits.softmax(-1)
        if padding_mask is not None:
            weights = weights.masked_fill(padding_mask.flatten(1).all(1)[:, None, None, None, None], 0.0)
        out = torch.einsum("bnyxk,bnkd->bndyx", weights, v.flatten(2, 3)).flatten(1, 2)
        return F.avg_pool2d(out, 2, ceil_mode=True) if self.pool else out

    def attention_from(self, x: Tensor, query_yx: tuple[int, int]) -> Tensor:
        """`x` (B, C, H, W) -> the attention of the query at cell `query_yx`: (B, N, H, W), each head summing to 1."""
        q, k, _ = self._project(x)
        return attention_of_query(*self._dot_products(q, k), query_yx)

    def logit_terms(self, x: Tensor) -> Mapping[str, LogitTerm]:
        """What the logits of `x` (B, C, H, W) are the sum of: "content" and "position", or one of them.

        A term is a pair of query parts and key parts, (B, N, H, W, any) each, whose dot products are its logits.
        """
        q, k, _ = self._project(x)
        if self.position in ("relative", "position_only"):
            queries, keys = relative_parts(q, k, *self._tables_for(q))
            position = {"position": (queries[1:], keys[1:])}
            return position if self.position == "position_only" else {"content": (queries[:1], keys[:1])} | position
        if self.position == "blog":
            return {"content": ((q,), (k,)), "position": ((self._embedding(q),), (q,))}
        q = q * q.shape[-1] ** -0.5
        content = {"content": ((q,), (k,))}
        return content if self.position == "none" else content | {"position": ((q,), (self._embedding(q),))}

    def queries(self, x: Tensor) -> Tensor:
        """`x` (B, C, H, W) -> what position tables are multiplied by: (B, N, H, W, D), scaled except for "blog"."""
        q, _, _ = self._project(x)
        return q if self.position == "blog" else q * q.shape[-1] ** -0.5

    def tables_for(self, height: int, width: int) -> dict[str, Tensor]:
        """The position tables by name as a map of `height` x `width` cells uses them; empty for "none".

        `rel_height` (2 height - 1, D) and `rel_width`: entry L - 1 is offset 0, and a later one a key below or right of
        the query. `abs_height` (height, D) and `abs_width`: one entry per row and column; (height, N D) in the listing.
        """
        sizes = {"rel_height": height, "abs_height": height, "rel_width": width, "abs_width": width}
        return {
            name: (resize_table if name.startswith("rel_") else resize_absolute_table)(table, sizes[name], self.tables)
            for name, table in self.position_tables().items()
        }

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each (B, N, H, W, D): views of one channels_last projection."""
        q, k, v = _split_heads(self.qkv(x), self.heads, x.shape[1] // self.heads)
        return q, k, v

    def _tables_for(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """The relative tables at the size and in the dtype of the map at hand."""
        H, W = q.shape[2:4]
        height, width = resize_table(self.rel_height, H, self.tables), resize_table(self.rel_width, W, self.tables)
        return height.to(q.dtype), width.to(q.dtype)

    def _dot_products(self, q: Tensor, k: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The logits of this position kind as sums of dot products of (B, N, H, W, any)."""
        if self.position in ("relative", "position_only"):
            return relative_parts(q, k, *self._tables_for(q))
        if self.position == "none":
            return (q * q.shape[-1] ** -0.5,), (k,)
        if self.position == "absolute":
            return (q * q.shape[-1] ** -0.5,), (k + self._embedding(q),)
        return (q, self._embedding(q)), (k, q)

    def _embedding(self, q: Tensor) -> Tensor:
        """The absolute embedding of every position, expanded to (B, N, H, W, D)."""
        H, W = q.shape[2:4]
        height = resize_absolute_table(self.abs_height, H, self.tables).to(q.dtype)
        width = resize_absolute_table(self.abs_width, W, self.tables).to(q.dtype)
        embedding = height[:, None] + width[None]  # (H, W, D), or (H, W, C) in the listing
        if self.position == "blog":
            embedding = embedding.unflatten(2, (self.heads, -1)).permute(2, 0, 1, 3)
        return embedding.expand_as(q)

    def extra_repr(self) -> str:
        H, W = self.size
        pool = ", pool" if self.pool else ""
        return f"heads={self.heads}, size={H}x{W}, position={self.position}, tables={self.tables}{pool}"


@torch.fx.wrap
def _split_heads(projected: Tensor, heads: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, 3 N D, H, W) -> q, k, v (B, N, H, W, D); from (B, 2 N D, H, W), without keys, k is zero."""
    parts = projected.permute(0, 2, 3, 1).unflatten(3, (-1, heads, D))
    # Split before the permutation: so the gradients are concatenated in the order of the map, in one copy.
    q, *k, v = (part.permute(0, 3, 1, 2, 4) for part in parts.unbind(3))
    return q, k[0] if k else torch.zeros_like(q), v


def _adapt_state(module: MHSA2d, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before loading: translate the blog listing's names, and resize tables of another size by the module's policy."""
    if module.position == "blog":
        _translate_listing(state, prefix)
    for name, table in module.position_tables().items():
        loaded = state.get(prefix + name)
        if loaded is None or loaded.shape == table.shape or loaded.shape[1:] != table.shape[1:]:
            continue
        if name.startswith("rel_"):
            fitted = resize_table(loaded, (len(table) + 1) // 2, module.tables)
        else:
            fitted = resize_absolute_table(loaded, len(table), module.tables)
        state[prefix + name] = fitted
        logger.info(
            "%s%s: %d entries in the file, %d here; resized by %r",
            prefix,
            name,
            len(loaded),
            len(table),
            module.tables,
        )


def _translate_listing(state: dict[str, Tensor], prefix: str) -> None:
    """A projection without a bias has one of 0."""
    names = [prefix + part for part in ("query", "key", "value")]
    if not {f"{name}.weight" for name in names} | {prefix + "rel_w", prefix + "rel_h"} <= state.keys():
        return
    weights = [state.pop(f"{name}.weight") for name in names]
    biases = [state.pop(f"{name}.bias", None) for name in names]
    state[prefix + "qkv.weight"] = torch.cat(weights)
    state[prefix + "qkv.bias"] = torch.cat(
        [w.new_zeros(len(w)) if bias is None else bias for w, bias in zip(weights, biases, strict=True)]
    )
    # The listing calls dimension 2 (our rows) "width": rel_w is [1, C, rows, 1], rel_h is [1, C, 1, columns].
    for old, new in (("rel_w", "abs_height"), ("rel_h", "abs_width")):
        state[prefix + new] = state.pop(prefix + old).reshape(len(weights[0]), -1).T
