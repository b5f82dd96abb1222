"""The same answer on the CPU, a tile of queries against all keys at a time, by plain matrix products.

A tile's logits start as its position terms, the matrix product itself adds q~ . k to them, and the softmax is taken in
place: two matrix products and a few passes over memory that stays in the cache. The backward pass makes each tile
again. A tile holds about 2^20 logits whatever the map, so memory is O(HW).

Letters: G images times heads, P = H * W positions, M queries of a tile.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from botformer.attention.augmented import relative_parts

# 4 MiB of float32. From 2^17 to 2^21 the time is the same within the noise.
TILE_LOGITS = 2**20
FEWEST_QUERIES = 64  # fewer make the matrix products slow: beyond 16384 positions a tile grows with the map


def tiled_attention(
    q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, key_padding: Tensor | None = None
) -> Tensor:
    """Exact relative attention in O(HW) memory: (B, N, H, W, Dv). Arguments as in `relative_attention_2d`."""
    (queries, row_terms, column_terms), _ = relative_parts(q, k, rel_height, rel_width)
    return attend(queries, k, v, row_terms, column_terms, key_padding)


@torch.library.custom_op("botformer::tiled_attention", mutates_args=())
def attend(
    queries: Tensor, keys: Tensor, values: Tensor, row_terms: Tensor, column_terms: Tensor, key_padding: Tensor | None
) -> Tensor:
    """softmax(queries . keys + row_terms[y'] + column_terms[x']) values, over all keys (y', x'): (B, N, H, W, Dv).

    An operator of its own, so that compiled graphs do not unroll the loop over tiles.

    Args:
        queries, keys: (B, N, H, W, D), the queries scaled.
        values: (B, N, H, W, Dv).
        row_terms: (B, N, H, W, H).
        column_terms: (B, N, H, W, W).
        key_padding: (B, H, W) bool, True = no attention.
    """
    out = values.new_empty(values.shape)
    if out.numel():
        maps = [_merged(x) for x in (queries, keys, values, row_terms, column_terms)]
        result, padding = _merged(out), _merged_padding(key_padding, queries.shape[1])
        logits = _room(maps[0])
        for heads, rows in _tiles(maps[0]):
            weights = _weights(logits, maps, padding, heads, rows)
            result[heads, rows] = torch.bmm(weights, maps[2][heads])
    return out


@attend.register_fake
def _(queries: Tensor, keys: Tensor, values: Tensor, *_: Any) -> Tensor:
    return values.new_empty(values.shape)


@torch.library.custom_op("botformer::tiled_attention_backward", mutates_args=())
def attend_backward(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    row_terms: Tensor,
    column_terms: Tensor,
    key_padding: Tensor | None,
    out: Tensor,
    d_out: Tensor,
) -> list[Tensor]:
    """The gradients of the first five arguments."""
    inputs = queries, keys, values, row_terms, column_terms
    gradients = [x.new_zeros(x.shape) for x in inputs]
    if not out.numel():
        return gradients
    maps, padding = [_merged(x) for x in inputs], _merged_padding(key_padding, queries.shape[1])
    d_queries, d_keys, d_values, d_rows, d_columns = (_merged(x) for x in gradients)
    upstream = _merged(d_out)
    # sum over keys of weight * gradient of the weight, which the softmax's gradient takes off: out . d_out
    delta = (_merged(out) * upstream).sum(-1, keepdim=True)
    logits, d_logits_room = _room(maps[0]), _room(maps[0])
    for heads, rows in _tiles(maps[0]):
        weights = _weights(logits, maps, padding, heads, rows)
        d_values[heads].baddbmm_(weights.mT, upstream[heads, rows])
        d_logits = torch.bmm(upstream[heads, rows], maps[2][heads].mT, out=_like(d_logits_room, weights))
        d_logits.sub_(delta[heads, rows]).mul_(weights)
        d_queries[heads, rows] = torch.bmm(d_logits, maps[1][heads])
        d_keys[heads].baddbmm_(d_logits.mT, maps[0][heads, rows])
        by_row = d_logits.unflatten(2, (d_rows.shape[-1], d_columns.shape[-1]))
        d_rows[heads, rows], d_columns[heads, rows] = by_row.sum(3), by_row.sum(2)
    return gradients


@attend_backward.register_fake
def _(*inputs: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in inputs[:5]]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    return *attend_backward(*ctx.saved_tensors, d_out), None


attend.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.botformer.tiled_attention)
def forward_flops(queries: torch.Size, keys: torch.Size, values: torch.Size, *_: Any, **__: Any) -> int:
    """Two for every multiply-add of q . k and weights times v; the position terms are products outside."""
    B, N, H, W, D = queries
    return 2 * B * N * (H * W) ** 2 * (D + values[-1])


@register_flop_formula(torch.ops.botformer.tiled_attention_backward)
def backward_flops(queries: torch.Size, keys: torch.Size, values: torch.Size, *_: Any, **__: Any) -> int:
    """Logits once more, and the gradients of weights, values, queries and keys."""
    B, N, H, W, D = queries
    return 2 * B * N * (H * W) ** 2 * (3 * D + 2 * values[-1])


def _merged(x: Tensor) -> Tensor:
    """(B, N, H, W, D) -> (G, P, D)."""
    return x.flatten(2, 3).flatten(0, 1)


def _merged_padding(key_padding: Tensor | None, heads: int) -> Tensor | None:
    """(B, H, W) -> (G, 1, P)."""
    if key_padding is None:
        return None
    return key_padding.flatten(1)[:, None].expand(-1, heads, -1).flatten(0, 1)[:, None]


def _tile_shape(queries: Tensor) -> tuple[int, int]:
    """Images times heads, and queries, of the largest tile."""
    G, P = queries.shape[:2]
    M = min(P, max(FEWEST_QUERIES, TILE_LOGITS // P))
    return min(G, max(1, TILE_LOGITS // (M * P))), M


def _tiles(queries: Tensor) -> Iterator[tuple[slice, slice]]:
    (G, P), (heads, rows) = queries.shape[:2], _tile_shape(queries)
    for g in range(0, G, heads):
        for m in range(0, P, rows):
            yield slice(g, min(g + heads, G)), slice(m, min(m + rows, P))


def _room(queries: Tensor) -> Tensor:
    heads, rows = _tile_shape(queries)
    return queries.new_empty(heads * rows * queries.shape[1])


def _like(room: Tensor, tile: Tensor) -> Tensor:
    return room[: tile.numel()].view(tile.shape)


def _weights(room: Tensor, maps: list[Tensor], padding: Tensor | None, heads: slice, rows: slice) -> Tensor:
    """The softmax of a tile in `room`: (heads, rows, P)."""
    queries, keys, _, row_terms, column_terms = maps
    rows_of_keys, columns_of_keys = row_terms[heads, rows, :, None], column_terms[heads, rows, None, :]
    shape = torch.broadcast_shapes(rows_of_keys.shape, columns_of_keys.shape)
    tile = room[: shape.numel()].view(shape)
    logits = torch.add(rows_of_keys, columns_of_keys, out=tile).flatten(2)
    logits.baddbmm_(queries[heads, rows], keys[heads].mT)
    if padding is None:
        return torch.softmax(logits, -1, out=logits)
    logits.masked_fill_(padding[heads], -torch.inf)
    weights = torch.softmax(logits, -1, out=logits)
    return weights.masked_fill_(padding[heads].all(-1, keepdim=True), 0)  # no key at all: 0 / 0 above
