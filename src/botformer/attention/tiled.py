"""Relative attention on the CPU by plain matrix products: one tile of queries against all keys at a time.

The logits of a tile are one product. The two position terms are added and the softmax is computed in place: two matrix
products and a few passes over memory that stays in the cache. The backward pass recomputes each tile. A tile
holds about 2^20 logits whatever the map, and the position terms of a head are O(HW (H + W)).

Notation: G images times heads, P = H * W positions, M queries per tile; g images times heads of one group.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from botformer.attention.autocast import without_autocast
from botformer.attention.channels_last import empty_channels_last
from botformer.attention.definition import pooled_attention_by_definition
from botformer.attention.higher_derivatives import beyond_first_order, gradients_of
from botformer.attention.products import product

TILE_LOGITS = 2**20  # 4 MiB of float32
MIN_QUERIES = 64  # per tile; fewer make the products slow, so beyond 16384 positions a tile grows with the map


@torch.library.custom_op("botformer::tiled_attention", mutates_args=())
def tiled_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None = None,
    pool: bool = False,
) -> Tensor:
    """Exact relative attention without an N x N matrix: (B, N, H, W, Dv). Arguments as in `relative_attention_2d`.

    With `pool`, H and W must be even and are halved in the result. The average of four results is the average of their
    weights times v, which needs a quarter of the multiply-adds.

    A custom operator, so that compiled graphs do not unroll the loop over tiles.
    """
    out = _result(v, pool)
    for where, group in _groups(q, k, v, rel_height, rel_width, padding_mask, pool):
        out[where] = group.attend().view(out[where].shape)
    return out


@tiled_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None = None,
    pool: bool = False,
) -> Tensor:
    return _result(v, pool)


@torch.library.custom_op("botformer::tiled_attention_backward", mutates_args=())
def tiled_attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None,
    pool: bool,
    d_out: Tensor,
) -> list[Tensor]:
    """Gradients of q, k, v and both tables."""
    d_maps = [empty_channels_last(x) for x in (q, k, v)]
    d_tables = [torch.zeros_like(x) for x in (rel_height, rel_width)]
    with without_autocast(q.device):  # somebody's, around `backward()`, would round the products
        for where, group in _groups(q, k, v, rel_height, rel_width, padding_mask, pool):
            *of_maps, of_tables = group.gradients(_merged(d_out[where]))
            for total, part in zip(d_maps, of_maps, strict=True):
                total[where] = part.view(total[where].shape)
            for total, part in zip(d_tables, of_tables, strict=True):
                total += part
    return d_maps + d_tables


@tiled_attention_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, *_: Any) -> list[Tensor]:
    d_maps = [empty_channels_last(x) for x in (q, k, v)]
    return [*d_maps, torch.empty_like(rel_height), torch.empty_like(rel_width)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.pool = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, padding_mask = ctx.saved_tensors
    if not beyond_first_order(d_out):
        return *tiled_attention_backward(*inputs, padding_mask, ctx.pool, d_out), None, None
    formula = partial(pooled_attention_by_definition, padding_mask=padding_mask, pool=ctx.pool)
    return *gradients_of(formula, inputs, d_out), None, None


tiled_attention.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.botformer.tiled_attention)
def forward_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Two for every multiply-add of the definition, pooled or not: q . k, q . r and weights times v."""
    return _flops(q, content=q[-1] + v[-1], position=1)


@register_flop_formula(torch.ops.botformer.tiled_attention_backward)
def backward_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """The logits again, and the gradients of weights, values, queries, keys and tables."""
    return _flops(q, content=3 * q[-1] + 2 * v[-1], position=2)


def _flops(q: torch.Size, content: int, position: int) -> int:
    B, N, H, W, D = q
    return 2 * B * N * H * W * (H * W * content + position * (H + W) * D)


class _Group:
    """Some heads of some images that are computed together: g of them, contiguous in memory.

    Where the result is pooled, queries are ordered by the 2x2 cells that are averaged: P / 4 cells of four each.

    Args:
        q, k: (any, any, H, W, D), the first two dimensions g in all.
        v: (any, any, H, W, Dv).
        rel_height, rel_width: (2H-1, D) and (2W-1, D).
        padding: (g, 1, P).
    """

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, padding: Tensor | None, pool: bool
    ) -> None:
        H, W = q.shape[2:4]
        self.size, self.tables, self.padding, self.pool = (H, W), (rel_height, rel_width), padding, pool
        keyless = None if padding is None else padding.all(-1, keepdim=True)
        self.only_padding = None if keyless is None or not keyless.any() else keyless
        self.scale, self.factor = q.shape[-1] ** -0.5, 0.25 if pool else 1.0
        # (length, step in y, step in x) of each dimension of the queries
        self.grid = [(H // 2, 2, 0), (W // 2, 0, 2), (2, 1, 0), (2, 0, 1)] if pool else [(H, 1, 0), (W, 0, 1)]
        q = _cells(q).flatten(2, 5).flatten(0, 1) if pool else _merged(q)
        # Into rows, as `_own_offsets` counts: one head of an NCHW map lies column by column, and so would its products.
        self.q = torch.mul(q, self.scale, out=q.new_empty(q.shape))
        self.k, self.v = _merged(k).contiguous(), _merged(v).contiguous()
        # (g, P, H) and (g, P, W)
        self.terms = [
            self._own_offsets(self._products(table), axis).flatten(1, -2) for axis, table in enumerate(self.tables)
        ]

    def attend(self) -> Tensor:
        """(g, P, Dv), or (g, P / 4, Dv) pooled."""
        tiles = [product(self._averaged(self._weights(rows)), self.v) for rows in self.tiles()]
        return torch.cat(tiles, 1).mul_(self.factor)

    def gradients(self, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Gradients of q, k, v (g, P, any), in the order of the map, and of both tables."""
        upstream = d_out * self.factor
        d_q = torch.empty_like(self.q)
        d_k, d_v = (x.new_zeros(x.mT.shape).mT for x in (self.k, self.v))  # column-major, as the products below are
        d_terms = [torch.empty_like(x) for x in self.terms]
        for rows in self.tiles():
            weights = self._weights(rows)
            of_tile = upstream[:, rows.start // 4 : rows.stop // 4] if self.pool else upstream[:, rows]
            d_v += product(self._averaged(weights).mT, of_tile)
            d_logits = self._times_each(weights, product(of_tile, self.v.mT))
            d_logits.addcmul_(weights, d_logits.sum(-1, keepdim=True), value=-1)
            d_q[:, rows] = product(d_logits, self.k)
            d_k += product(d_logits.mT, self.q[:, rows])
            on_map = d_logits.unflatten(2, self.size)
            d_terms[0][:, rows], d_terms[1][:, rows] = on_map.sum(3), on_map.sum(2)
        d_tables = []
        for axis, (d_term, table) in enumerate(zip(d_terms, self.tables, strict=True)):
            d_products = d_term.new_zeros(*d_term.shape[:2], len(table))
            own = self._own_offsets(d_products, axis)
            own.copy_(d_term.view(own.shape))
            d_products = d_products.flatten(0, 1)[None]
            d_q += product(d_products, table[None]).view(d_q.shape)
            d_tables.append(product(d_products.mT, self.q.flatten(0, 1)[None])[0])
        d_q.mul_(self.scale)
        if self.pool:
            H, W = self.size
            d_q = d_q.view(-1, H // 2, W // 2, 2, 2, d_q.shape[-1]).transpose(2, 3).reshape(d_q.shape)
        return d_q, d_k, d_v, d_tables

    def tiles(self) -> Iterator[slice]:
        """The tiles of queries; whole cells where they are pooled."""
        P = self.q.shape[1]
        M = _queries_per_tile(P)
        return (slice(m, min(m + M, P)) for m in range(0, P, M))

    def _products(self, table: Tensor) -> Tensor:
        """The products of all queries with all table entries: (g, P, 2L-1)."""
        return product(self.q.flatten(0, 1)[None], table.mT[None]).view(*self.q.shape[:2], -1)

    def _own_offsets(self, products: Tensor, axis: int) -> Tensor:
        """The products (g, P, 2L-1) at the offsets of the keys only: a view (g, *grid of queries, L).

        The entry of a query at (y, x) and a key is the product with offset key - y, or key - x: one step along the axis
        is one step back in the table.
        """
        assert products.is_contiguous(), products.stride()
        g, P, offsets = products.shape
        strides, lengths, stride = [1], [self.size[axis]], offsets
        for length, *steps in reversed(self.grid):
            strides.insert(0, stride - steps[axis])
            lengths.insert(0, length)
            stride *= length
        return products.as_strided(
            (g, *lengths), (P * offsets, *strides), products.storage_offset() + self.size[axis] - 1
        )

    def _averaged(self, weights: Tensor) -> Tensor:
        """The sum of the weights (g, M, P) that are pooled into one result; `factor` makes it the average."""
        return weights.unflatten(1, (-1, 4)).sum(2) if self.pool else weights

    def _times_each(self, weights: Tensor, d_averaged: Tensor) -> Tensor:
        """Weights (g, M, P) times the gradient of the pooled sum they belong to."""
        if not self.pool:
            return d_averaged.mul_(weights)
        return (weights.unflatten(1, (-1, 4)) * d_averaged[:, :, None]).flatten(1, 2)

    def _weights(self, rows: slice) -> Tensor:
        """The softmax of a tile: (g, M, P)."""
        logits = product(self.q[:, rows], self.k.mT)
        on_map, (row_terms, column_terms) = logits.unflatten(2, self.size), self.terms
        on_map.add_(row_terms[:, rows, :, None]).add_(column_terms[:, rows, None, :])
        if self.padding is None:
            return torch.softmax(logits, -1, out=logits)
        logits.masked_fill_(self.padding, -torch.inf)
        weights = torch.softmax(logits, -1, out=logits)
        return weights if self.only_padding is None else weights.masked_fill_(self.only_padding, 0)  # 0 / 0 above


def _groups(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None,
    pool: bool,
) -> Iterator[tuple[tuple[slice, slice], _Group]]:
    """Groups of as many heads, then images, as fit into one tile, with the slices of images and heads they are."""
    B, N, H, W, _ = q.shape
    assert not (pool and (H % 2 or W % 2)), (H, W)
    if not v.numel():
        return
    maps_per_tile = TILE_LOGITS // (_queries_per_tile(H * W) * H * W)
    heads = min(N, max(1, maps_per_tile))
    images = max(1, maps_per_tile // N)
    for b in range(0, B, images):
        mask = None if padding_mask is None else padding_mask[b : b + images, None]
        if mask is not None and not mask.any():
            mask = None  # it would cost a pass over the logits
        for n in range(0, N, heads):
            where = slice(b, b + images), slice(n, n + heads)
            padding = None if mask is None else mask.expand(-1, q[where].shape[1], -1, -1).reshape(-1, 1, H * W)
            yield where, _Group(q[where], k[where], v[where], rel_height, rel_width, padding, pool)


def _queries_per_tile(positions: int) -> int:
    """A multiple of four, or all."""
    return min(positions, max(MIN_QUERIES, TILE_LOGITS // positions) // 4 * 4)


def _merged(x: Tensor) -> Tensor:
    """(B, N, H, W, D) -> (G, P, D)."""
    return x.flatten(2, 3).flatten(0, 1)


def _cells(x: Tensor) -> Tensor:
    """(B, N, H, W, D) -> (B, N, H/2, W/2, 2, 2, D)."""
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).transpose(3, 4)


def _result(v: Tensor, pool: bool) -> Tensor:
    """An uninitialised tensor for the result."""
    return empty_channels_last(v[:, :, ::2, ::2] if pool else v)
