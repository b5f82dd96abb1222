"""The fused kernels for CUDA: forward, and a backward that recomputes. docs/attention.md explains the algorithm.

Notation: B batch size, N heads, H x W map, D query and key width, DV value width; m a query and n a key of a tile,
(y, x) the position of a query and (key_y, key_x) that of a key. A key tile is BLOCK_Y x BLOCK_X keys of the map:

    logit[m, n] = q~[m] . k[n] + column_terms[m, key_x] + row_terms[key_y, m]

needs one tile of column terms for all key rows and one column of row terms for each. Both terms are q~ . table,
computed by the program that needs them and kept in O(N (H + W)) scratch memory:

    column_terms (B*N, H*W, W)    q~ . R_w[key_x - x + W - 1]
    row_terms    (B*N, H, H*W)    q~ . R_h[key_y - y + H - 1], queries last: in both, accesses are coalesced

Logits are in units of log 2, because the hardware computes exp2. There are no atomic additions: results are the same to
the bit from run to run.

Pooled (H and W even), the results of the four queries of a 2x2 cell are averaged. Then m counts the queries cell by
cell, 4 * cell + place in the cell, everything that is stored per query is in this order, and a tile of queries is
BLOCK_M / 4 whole cells. docs/decisions/0037-pool-in-the-fused-kernels.md has the arithmetic.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _tile_and_image(tiles, N):
    """This program's tile, image and head; tiles of one head are neighbours, for the cache."""
    program = tl.program_id(0)
    return program % tiles, program // tiles // N, program // tiles % N


@triton.jit
def _places(m, W, POOL: tl.constexpr):
    """Row, column and position y * W + x of queries."""
    if POOL:
        y, x = 2 * (m // (2 * W)) + m % 4 // 2, 2 * (m // 4 % (W // 2)) + m % 2
        return y, x, y * W + x
    return m // W, m % W, m


@triton.jit
def _first_and_last_row(tile, H, W, BLOCK_M: tl.constexpr, POOL: tl.constexpr):
    """Of the map, for a tile of queries."""
    first, last = tile * BLOCK_M, tl.minimum(tile * BLOCK_M + BLOCK_M, H * W) - 1
    if POOL:
        return 2 * (first // (2 * W)), 2 * (last // (2 * W)) + 1
    return first // W, last // W


@triton.jit
def _map_start(pointer, strides, b, n):
    """Where the map of one image and head starts in a (B, N, H, W, D) tensor of these strides (the last is 1)."""
    return pointer + b.to(tl.int64) * strides[0] + n * strides[1]


@triton.jit
def _dense_start(pointer, b, n, N, positions, D: tl.constexpr):
    """The same in a tensor stored as (B, H, W, N, D): positions are N * D apart."""
    return pointer + b.to(tl.int64) * positions * N * D + n * D


@triton.jit
def _load_rows(start, offsets, valid, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """(len(offsets), BLOCK_D) vectors, zero where not valid and beyond D."""
    d = tl.arange(0, BLOCK_D)
    return tl.load(start + offsets[:, None] + d[None, :], mask=valid[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def _load_columns(start, offsets, valid, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """The same transposed: (BLOCK_D, len(offsets))."""
    d = tl.arange(0, BLOCK_D)
    return tl.load(start + offsets[None, :] + d[:, None], mask=valid[None, :] & (d < D)[:, None], other=0.0)


@triton.jit
def _store_rows(start, offsets, valid, values, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    tl.store(start + offsets[:, None] + d[None, :], values, mask=valid[:, None] & (d < D)[None, :])


@triton.jit
def _store_position_terms(
    q_tile, m, y, x, rel_height, rel_width, row_terms, column_terms, tile, H, W,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, PRECISION: tl.constexpr,
    POOL: tl.constexpr,
):  # fmt: skip
    """Store both position terms of a query tile for this program to read back; pointers are those of its head."""
    scale = D**-0.5 * LOG2E
    for first in range(0, 2 * W - 1, BLOCK_L):
        entry = first + tl.arange(0, BLOCK_L)
        table = _load_columns(rel_width, entry * D, entry < 2 * W - 1, D, BLOCK_D)
        terms = tl.dot(q_tile, table, input_precision=PRECISION) * scale
        key_x = entry[None, :] - (W - 1) + x[:, None]
        inside = (key_x >= 0) & (key_x < W) & (m < H * W)[:, None]
        tl.store(column_terms + m[:, None] * W + key_x, terms, mask=inside)
    # Only the row offsets that occur for this tile's few rows: from its last row upwards to its first row downwards.
    y_first, y_last = _first_and_last_row(tile, H, W, BLOCK_M, POOL)
    for first in range(H - 1 - y_last, 2 * H - 1 - y_first, BLOCK_L):
        entry = first + tl.arange(0, BLOCK_L)
        table = _load_columns(rel_height, entry * D, entry < 2 * H - 1, D, BLOCK_D)
        terms = tl.dot(q_tile, table, input_precision=PRECISION) * scale
        key_y = entry[None, :] - (H - 1) + y[:, None]
        inside = (key_y >= 0) & (key_y < H) & (m < H * W)[:, None]
        tl.store(row_terms + key_y * (H * W) + m[:, None], terms, mask=inside)
    tl.debug_barrier()  # from here on, what other threads of this program stored is visible


@triton.jit
def _load_column_terms(column_terms, m, key_x, H, W):
    """(m, n) tile, -inf for keys beyond the image's edge: so no other mask is needed there."""
    term = tl.load(column_terms + m[:, None] * W + key_x[None, :], mask=((m < H * W)[:, None] & (key_x < W)), other=0.0)
    return tl.where((key_x < W)[None, :], term.to(tl.float32), float("-inf"))


@triton.jit
def _load_row_terms(row_terms, m, y0, H, W, BLOCK_Y: tl.constexpr):
    """(m, BLOCK_Y), -inf for rows beyond the image's edge."""
    key_y = y0 + tl.arange(0, BLOCK_Y)
    term = tl.load(
        row_terms + key_y[None, :] * (H * W) + m[:, None], mask=(m < H * W)[:, None] & (key_y < H)[None, :], other=0.0
    )
    return tl.where((key_y < H)[None, :], term.to(tl.float32), float("-inf"))


@triton.jit
def _add_row_terms(logits, terms, BLOCK_M: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """logits (m, BLOCK_Y * BLOCK_X) + terms (m, BLOCK_Y), one for each key row of the tile."""
    if BLOCK_Y == 1:
        return logits + terms
    by_row = tl.reshape(logits, (BLOCK_M, BLOCK_Y, BLOCK_X)) + terms[:, :, None]
    return tl.reshape(by_row, (BLOCK_M, BLOCK_Y * BLOCK_X))


@triton.jit
def forward_kernel(
    q, k, v, rel_height, rel_width, padding_mask, out, pooled, largest_logit, normalizer, row_terms, column_terms,
    q_strides, k_strides, v_strides, N, H, W,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_L: tl.constexpr,
    PRECISION: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """One query tile against all keys by the online softmax: out (B, H, W, N, DV) and, both (B*N, H*W), the
    largest logit of each query, in units of log 2, and the normalizer of exp2(logit - largest): one over their sum.

    The backward pass computes the weights from these two and not from the logarithm of the sum, whose rounding error
    would be in all weights of a query.

    Pooled, it fills pooled (B, H/2, W/2, N, DV), and out unless that is None. The four queries of a cell have different
    normalizers, which the online softmax knows at the end: so their results are averaged, not their weights.
    """
    positions = H * W
    tile, b, head = _tile_and_image(tl.cdiv(positions, BLOCK_M), N)
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    y, x, at = _places(m, W, POOL)
    image = (b * N + head).to(tl.int64)
    row_terms += image * H * positions
    column_terms += image * positions * W
    q_tile = _load_rows(
        _map_start(q, q_strides, b, head), y * q_strides[2] + x * q_strides[3], m < positions, D, BLOCK_D
    )
    _store_position_terms(
        q_tile, m, y, x, rel_height, rel_width, row_terms, column_terms, tile, H, W,
        D, BLOCK_D, BLOCK_M, BLOCK_L, PRECISION, POOL,
    )  # fmt: skip
    k_start, v_start = _map_start(k, k_strides, b, head), _map_start(v, v_strides, b, head)
    n = tl.arange(0, BLOCK_Y * BLOCK_X)
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_DV), tl.float32)
    for x0 in range(0, W, BLOCK_X):
        key_x = x0 + n % BLOCK_X
        column_term = _load_column_terms(column_terms, m, key_x, H, W)
        for y0 in range(0, H, BLOCK_Y):
            key_y = y0 + n // BLOCK_X
            inside = (key_y < H) & (key_x < W)
            keys = _load_columns(k_start, key_y * k_strides[2] + key_x * k_strides[3], inside, D, BLOCK_D)
            content = tl.dot(q_tile, keys, input_precision=PRECISION)
            logits = content * (D**-0.5 * LOG2E) + column_term
            if padding_mask is not None:
                padded = tl.load(padding_mask + b * positions + key_y * W + key_x, mask=inside, other=1)
                logits = tl.where((padded != 0)[None, :], float("-inf"), logits)
            row_term = _load_row_terms(row_terms, m, y0, H, W, BLOCK_Y)
            if BLOCK_Y == 1:  # one term per query: added to the largest and the reference, and not to each logit
                row_term = tl.reshape(row_term, (BLOCK_M,))
                new_largest = tl.maximum(largest, tl.max(logits, 1) + row_term)
            else:
                logits = _add_row_terms(logits, row_term, BLOCK_M, BLOCK_Y, BLOCK_X)
                new_largest = tl.maximum(largest, tl.max(logits, 1))
            reference = new_largest
            if padding_mask is not None:  # no key so far: -inf - -inf is NaN
                reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            shifted = logits + (row_term - reference)[:, None] if BLOCK_Y == 1 else logits - reference[:, None]
            weights = tl.exp2(shifted)
            shrink = tl.exp2(largest - reference)
            total = total * shrink + tl.sum(weights, 1)
            values = _load_rows(v_start, key_y * v_strides[2] + key_x * v_strides[3], inside, DV, BLOCK_DV)
            acc = acc * shrink[:, None]
            acc = tl.dot(weights.to(values.dtype), values, acc, input_precision=PRECISION)
            largest = new_largest
    if padding_mask is not None:  # an image without a key: zeros here, and weights of zero in the backward pass
        largest = tl.where(total == 0, 0.0, largest)
        scale = tl.where(total == 0, 0.0, 1 / total)
    else:
        scale = 1 / total
    acc = acc * scale[:, None]
    tl.store(largest_logit + image * positions + m, largest, mask=m < positions)
    tl.store(normalizer + image * positions + m, scale, mask=m < positions)
    if out is not None:
        _store_rows(
            _dense_start(out, b, head, N, positions, DV), at * (N * DV), m < positions, acc.to(out.dtype.element_ty),
            DV, BLOCK_DV,
        )  # fmt: skip
    if POOL:
        cell = tile * (BLOCK_M // 4) + tl.arange(0, BLOCK_M // 4)
        average = tl.sum(tl.reshape(acc, (BLOCK_M // 4, 4, BLOCK_DV)), 1) * 0.25
        _store_rows(
            _dense_start(pooled, b, head, N, positions // 4, DV), cell * (N * DV), cell < positions // 4,
            average.to(pooled.dtype.element_ty), DV, BLOCK_DV,
        )  # fmt: skip


@triton.jit
def query_gradient_kernel(
    q, k, v, rel_height, rel_width, padding_mask, out, d_out, largest_logit, normalizer,
    d_q, delta, row_terms, column_terms, d_row_terms, d_column_terms,
    q_strides, k_strides, v_strides, out_strides, d_out_strides, N, H, W,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_L: tl.constexpr,
    PRECISION: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """One query tile against all keys: d_q (B, H, W, N, D) and, for the kernels that follow, delta = out . d_out, the
    position terms and the gradients of the logits, summed over the keys with the same position term.

    Pooled, d_out is (B, N, H/2, W/2, DV); one row of it is the gradient of four results, but for a factor of 1/4, which
    goes into their normalizers.
    """
    positions = H * W
    tile, b, head = _tile_and_image(tl.cdiv(positions, BLOCK_M), N)
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    y, x, at = _places(m, W, POOL)
    image = (b * N + head).to(tl.int64)
    row_terms += image * H * positions
    column_terms += image * positions * W
    d_row_terms += image * H * positions
    d_column_terms += image * positions * W
    q_tile = _load_rows(
        _map_start(q, q_strides, b, head), y * q_strides[2] + x * q_strides[3], m < positions, D, BLOCK_D
    )
    _store_position_terms(
        q_tile, m, y, x, rel_height, rel_width, row_terms, column_terms, tile, H, W,
        D, BLOCK_D, BLOCK_M, BLOCK_L, PRECISION, POOL,
    )  # fmt: skip
    out_tile = _load_rows(
        _map_start(out, out_strides, b, head), y * out_strides[2] + x * out_strides[3], m < positions, DV, BLOCK_DV
    )
    d_out_start = _map_start(d_out, d_out_strides, b, head)
    d_y, d_x = (y // 2, x // 2) if POOL else (y, x)
    d_out_tile = _load_rows(d_out_start, d_y * d_out_strides[2] + d_x * d_out_strides[3], m < positions, DV, BLOCK_DV)
    tile_delta = tl.sum(out_tile.to(tl.float32) * d_out_tile.to(tl.float32), 1)
    tl.store(delta + image * positions + m, tile_delta, mask=m < positions)
    largest = tl.load(largest_logit + image * positions + m, mask=m < positions, other=0.0)
    scale = tl.load(normalizer + image * positions + m, mask=m < positions, other=0.0)
    if POOL:
        scale *= 0.25
    scaled_delta = scale * tile_delta
    k_start, v_start = _map_start(k, k_strides, b, head), _map_start(v, v_strides, b, head)
    n = tl.arange(0, BLOCK_Y * BLOCK_X)
    key_row = tl.arange(0, BLOCK_Y)
    acc = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for x0 in range(0, W, BLOCK_X):
        key_x = x0 + n % BLOCK_X
        column_term = _load_column_terms(column_terms, m, key_x, H, W)
        d_column_term = tl.zeros((BLOCK_M, BLOCK_Y * BLOCK_X), tl.float32)
        for y0 in range(0, H, BLOCK_Y):
            key_y = y0 + n // BLOCK_X
            inside = (key_y < H) & (key_x < W)
            keys = _load_columns(k_start, key_y * k_strides[2] + key_x * k_strides[3], inside, D, BLOCK_D)
            content = tl.dot(q_tile, keys, input_precision=PRECISION)
            logits = content * (D**-0.5 * LOG2E) + column_term
            shift = _load_row_terms(row_terms, m, y0, H, W, BLOCK_Y) - largest[:, None]  # per key row, not per logit
            logits = _add_row_terms(logits, shift, BLOCK_M, BLOCK_Y, BLOCK_X)
            if padding_mask is not None:
                padded = tl.load(padding_mask + b * positions + key_y * W + key_x, mask=inside, other=1)
                logits = tl.where((padded != 0)[None, :], float("-inf"), logits)
            weights = tl.exp2(logits)  # not normalized yet
            values = _load_columns(v_start, key_y * v_strides[2] + key_x * v_strides[3], inside, DV, BLOCK_DV)
            d_weights = tl.dot(d_out_tile, values, input_precision=PRECISION)
            d_logits = weights * (d_weights * scale[:, None] - scaled_delta[:, None])
            acc = tl.dot(d_logits.to(keys.dtype), tl.trans(keys), acc, input_precision=PRECISION)
            d_column_term += d_logits
            d_row_term = tl.sum(tl.reshape(d_logits, (BLOCK_M, BLOCK_Y, BLOCK_X)), 2)
            pointers = d_row_terms + (y0 + key_row)[None, :] * positions + m[:, None]
            mine = (m < positions)[:, None] & (y0 + key_row < H)[None, :]
            if x0 > 0:
                d_row_term += tl.load(pointers, mask=mine, other=0.0).to(tl.float32)
            tl.store(pointers, d_row_term, mask=mine)
        d_column_term = tl.sum(tl.reshape(d_column_term, (BLOCK_M, BLOCK_Y, BLOCK_X)), 1)
        shared_x = x0 + tl.arange(0, BLOCK_X)
        tl.store(
            d_column_terms + m[:, None] * W + shared_x[None, :], d_column_term,
            mask=(m < positions)[:, None] & (shared_x < W)[None, :],
        )  # fmt: skip
        tl.debug_barrier()  # the sums of the row terms go on from what other threads may have stored
    # The position terms' part of d_q: the logits' gradients, laid out by offset, times the tables.
    for first in range(0, 2 * W - 1, BLOCK_L):
        entry = first + tl.arange(0, BLOCK_L)
        d_terms = _column_gradients_by_offset(d_column_terms, m, x, entry, H, W)
        table = _load_rows(rel_width, entry * D, entry < 2 * W - 1, D, BLOCK_D)
        acc = tl.dot(d_terms.to(table.dtype), table, acc, input_precision=PRECISION)
    y_first, y_last = _first_and_last_row(tile, H, W, BLOCK_M, POOL)
    for first in range(H - 1 - y_last, 2 * H - 1 - y_first, BLOCK_L):
        entry = first + tl.arange(0, BLOCK_L)
        d_terms = _row_gradients_by_offset(d_row_terms, m, y, entry, H, W)
        table = _load_rows(rel_height, entry * D, entry < 2 * H - 1, D, BLOCK_D)
        acc = tl.dot(d_terms.to(table.dtype), table, acc, input_precision=PRECISION)
    acc = acc * D**-0.5
    _store_rows(
        _dense_start(d_q, b, head, N, positions, D), at * (N * D), m < positions, acc.to(d_q.dtype.element_ty), D,
        BLOCK_D,
    )  # fmt: skip


@triton.jit
def _column_gradients_by_offset(d_column_terms, m, x, entry, H, W):
    """(m, entries) of the width table, zero where a query's offset leaves the map."""
    key_x = entry[None, :] - (W - 1) + x[:, None]
    inside = (key_x >= 0) & (key_x < W) & (m < H * W)[:, None]
    return tl.load(d_column_terms + m[:, None] * W + key_x, mask=inside, other=0.0)


@triton.jit
def _row_gradients_by_offset(d_row_terms, m, y, entry, H, W):
    """(m, entries) of the height table, likewise."""
    key_y = entry[None, :] - (H - 1) + y[:, None]
    inside = (key_y >= 0) & (key_y < H) & (m < H * W)[:, None]
    return tl.load(d_row_terms + key_y * (H * W) + m[:, None], mask=inside, other=0.0)


@triton.jit
def _load_tile_terms(row_terms, column_terms, m, valid, y0, x0, H, W, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr):
    """Both terms of the key tile at (y0, x0), summed: (n, m).

    Each is loaded once for the keys that share it. They are summed before they meet the logits: those are not reshaped,
    because that makes the compiler compute them, and their exponentials, in two layouts.
    """
    key_y, key_x = y0 + tl.arange(0, BLOCK_Y), x0 + tl.arange(0, BLOCK_X)
    column_term = tl.load(  # added in 32 bits before the 64 of the pointer: registers are scarce here
        column_terms + (m[None, :] * W + key_x[:, None]), mask=(key_x < W)[:, None] & valid[None, :], other=0.0
    )
    row_term = tl.load(
        row_terms + (key_y[:, None] * (H * W) + m[None, :]), mask=(key_y < H)[:, None] & valid[None, :], other=0.0
    )
    terms = row_term.to(tl.float32)[:, None, :] + column_term.to(tl.float32)[None, :, :]
    return tl.reshape(terms, (BLOCK_Y * BLOCK_X, m.shape[0]))


@triton.jit
def key_gradient_kernel(
    q, k, v, padding_mask, d_out, largest_logit, normalizer, delta, row_terms, column_terms, d_k, d_v,
    q_strides, k_strides, v_strides, d_out_strides, N, H, W,
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr,
    PRECISION: tl.constexpr, POOL: tl.constexpr,
):  # fmt: skip
    """One key tile against all queries: d_k (B, H, W, N, D) and d_v (B, H, W, N, DV). Logits are transposed, (n, m).

    Pooled, a block of cells at a time: the first queries of all of them, then the second ones. So all tiles are (n,
    cells): the four of weights are averaged, and the one of their gradients used four times, where they are.
    """
    positions = H * W
    across = tl.cdiv(W, BLOCK_X)
    tile, b, head = _tile_and_image(tl.cdiv(H, BLOCK_Y) * across, N)
    image = (b * N + head).to(tl.int64)
    row_terms += image * H * positions
    column_terms += image * positions * W
    largest_logit += image * positions
    normalizer += image * positions
    delta += image * positions
    n = tl.arange(0, BLOCK_Y * BLOCK_X)
    y0, x0 = tile // across * BLOCK_Y, tile % across * BLOCK_X
    key_y, key_x = y0 + n // BLOCK_X, x0 + n % BLOCK_X
    inside = (key_y < H) & (key_x < W)
    keys = _load_rows(
        _map_start(k, k_strides, b, head), key_y * k_strides[2] + key_x * k_strides[3], inside, D, BLOCK_D
    )
    values = _load_rows(
        _map_start(v, v_strides, b, head), key_y * v_strides[2] + key_x * v_strides[3], inside, DV, BLOCK_DV
    )
    attended = inside
    if padding_mask is not None:
        attended &= tl.load(padding_mask + b * positions + key_y * W + key_x, mask=inside, other=1) == 0
    q_start, d_out_start = _map_start(q, q_strides, b, head), _map_start(d_out, d_out_strides, b, head)
    k_acc = tl.zeros((BLOCK_Y * BLOCK_X, BLOCK_D), tl.float32)
    v_acc = tl.zeros((BLOCK_Y * BLOCK_X, BLOCK_DV), tl.float32)
    if POOL:
        for first in range(0, positions // 4, BLOCK_M // 4):
            cell = first + tl.arange(0, BLOCK_M // 4)
            cell_y, cell_x = cell // (W // 2), cell % (W // 2)
            valid = cell < positions // 4
            d_out_tile = _load_rows(
                d_out_start, cell_y * d_out_strides[2] + cell_x * d_out_strides[3], valid, DV, BLOCK_DV
            )
            d_weights = tl.dot(values, tl.trans(d_out_tile), input_precision=PRECISION)
            average = tl.zeros((BLOCK_Y * BLOCK_X, BLOCK_M // 4), tl.float32)
            for place in range(4):
                m = 4 * cell + place
                y, x = 2 * cell_y + place // 2, 2 * cell_x + place % 2
                q_tile = _load_columns(q_start, y * q_strides[2] + x * q_strides[3], valid, D, BLOCK_D)
                terms = _load_tile_terms(row_terms, column_terms, m, valid, y0, x0, H, W, BLOCK_Y, BLOCK_X)
                largest = tl.load(largest_logit + m, mask=valid, other=0.0)
                scale = tl.load(normalizer + m, mask=valid, other=0.0) * 0.25
                tile_delta = tl.load(delta + m, mask=valid, other=0.0)
                content = tl.dot(keys, q_tile, input_precision=PRECISION)
                logits = content * (D**-0.5 * LOG2E) + (terms - largest[None, :])
                weights = tl.where(attended[:, None], tl.exp2(logits), 0.0)
                average += weights * scale[None, :]
                d_logits = weights * (d_weights * scale[None, :] - (scale * tile_delta)[None, :])
                k_acc = tl.dot(d_logits.to(keys.dtype), tl.trans(q_tile), k_acc, input_precision=PRECISION)
            v_acc = tl.dot(average.to(values.dtype), d_out_tile, v_acc, input_precision=PRECISION)
    else:
        for m0 in range(0, positions, BLOCK_M):
            m = m0 + tl.arange(0, BLOCK_M)
            y, x = m // W, m % W
            q_tile = _load_columns(q_start, y * q_strides[2] + x * q_strides[3], m < positions, D, BLOCK_D)
            largest = tl.load(largest_logit + m, mask=m < positions, other=0.0)
            scale = tl.load(normalizer + m, mask=m < positions, other=0.0)  # no weight for queries beyond the map
            content = tl.dot(keys, q_tile, input_precision=PRECISION)
            # After the product: summed before it, they make some candidate tiles spill registers.
            terms = _load_tile_terms(row_terms, column_terms, m, m < positions, y0, x0, H, W, BLOCK_Y, BLOCK_X)
            logits = content * (D**-0.5 * LOG2E) + (terms - largest[None, :])
            weights = tl.where(attended[:, None], tl.exp2(logits), 0.0)
            d_out_tile = _load_rows(
                d_out_start, y * d_out_strides[2] + x * d_out_strides[3], m < positions, DV, BLOCK_DV
            )
            v_acc = tl.dot((weights * scale[None, :]).to(values.dtype), d_out_tile, v_acc, input_precision=PRECISION)
            d_weights = tl.dot(values, tl.trans(d_out_tile), input_precision=PRECISION)
            tile_delta = tl.load(delta + m, mask=m < positions, other=0.0)
            d_logits = weights * (d_weights * scale[None, :] - (scale * tile_delta)[None, :])
            k_acc = tl.dot(d_logits.to(keys.dtype), tl.trans(q_tile), k_acc, input_precision=PRECISION)
    k_acc = k_acc * D**-0.5
    at = key_y * W + key_x
    _store_rows(
        _dense_start(d_k, b, head, N, positions, D), at * (N * D), inside, k_acc.to(d_k.dtype.element_ty), D, BLOCK_D
    )
    _store_rows(
        _dense_start(d_v, b, head, N, positions, DV), at * (N * DV), inside, v_acc.to(d_v.dtype.element_ty), DV,
        BLOCK_DV,
    )  # fmt: skip


@triton.jit
def table_gradient_kernel(
    q, d_row_terms, d_column_terms, partial, q_strides, B, N, H, W, splits,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, PRECISION: tl.constexpr,
    POOL: tl.constexpr,
):  # fmt: skip
    """d_table[offset] = sum over queries of the logits' gradients at that offset times q~.

    A program takes one block of entries of one table (all blocks of the height table first) and every `splits`-th query
    tile; `partial` (splits, 2H-1 + 2W-1, D) is summed by the caller, in a fixed order.
    """
    positions = H * W
    split = tl.program_id(1)
    height_blocks = tl.cdiv(2 * H - 1, BLOCK_L)
    block = tl.program_id(0)
    tall = block < height_blocks
    entry = tl.where(tall, block, block - height_blocks) * BLOCK_L + tl.arange(0, BLOCK_L)
    tiles = tl.cdiv(positions, BLOCK_M)
    acc = tl.zeros((BLOCK_L, BLOCK_D), tl.float32)
    for work in range(split, tiles * B * N, splits):
        b, head = work // tiles // N, work // tiles % N
        image = (b * N + head).to(tl.int64)
        m = work % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
        y, x, _ = _places(m, W, POOL)
        q_tile = _load_rows(
            _map_start(q, q_strides, b, head), y * q_strides[2] + x * q_strides[3], m < positions, D, BLOCK_D
        )
        if tall:
            d_terms = _row_gradients_by_offset(d_row_terms + image * H * positions, m, y, entry, H, W).to(q_tile.dtype)
        else:
            d_terms = _column_gradients_by_offset(d_column_terms + image * positions * W, m, x, entry, H, W).to(
                q_tile.dtype
            )
        acc = tl.dot(tl.trans(d_terms), q_tile, acc, input_precision=PRECISION)
    entries = tl.where(tall, 2 * H - 1, 2 * W - 1)
    start = partial + (split * (2 * H + 2 * W - 2) + tl.where(tall, 0, 2 * H - 1)).to(tl.int64) * D
    _store_rows(start, entry * D, entry < entries, acc * D**-0.5, D, BLOCK_D)
