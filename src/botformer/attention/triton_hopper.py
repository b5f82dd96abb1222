"""The forward pass for compute capability 9.0 on maps of which a key tile is exactly one row.

Notation as in `triton_kernels`. What differs from `forward_kernel`:

* Key and value tiles are boxes of a matrix in memory, copied to shared memory by the tensor memory accelerator: no
  address arithmetic per thread, no masks.
* The row terms of the next tile are loaded while this one is computed.
* SPECIALIZE makes the compiler split the program by warps: one group copies, two more each take half of the queries,
  so that one can multiply while the other is at its softmax. That pass of the compiler dictates some of the form of
  the kernel: docs/decisions/0038-forward-for-map-rows.md.
* The position terms are computed by a kernel of their own.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
# Triton's annotations are those of values inside its compiler.

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from botformer.attention.triton_blocks import Blocks, Capability
from botformer.attention.triton_kernels import (
    LOG2E,
    _dense_start,
    _load_rows,
    _map_start,
    _store_position_terms,
    _store_rows,
    _tile_and_image,
)

SPECIALIZED_QUERIES = 128  # two groups of four warps, each with the 64 rows of one matrix instruction
ALIGNMENT = 16  # bytes, of addresses and row pitches of the tensor memory accelerator


def supports(
    blocks: Blocks, q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, capability: Capability
) -> bool:
    """Whether `map_rows_kernel` computes exactly this; q, k, v (B, N, H, W, D)."""
    _, _, H, W, D = q.shape
    return (
        blocks.variant != "tiles"
        and capability[0] == 9
        and padding_mask is None
        and q.dtype.itemsize == 2
        and v.shape[-1] == D
        and D in (64, 128)
        and blocks.keys == W
        and W in (32, 64)
        and blocks.queries <= H * W
        and (blocks.variant == "map_rows" or (blocks.queries, blocks.warps) == (SPECIALIZED_QUERIES, 4))
        and all(_is_matrix(tensor) for tensor in (q, k, v))
    )


def arguments(q: Tensor, k: Tensor, v: Tensor, blocks: Blocks) -> dict[str, Any]:
    """What `map_rows_kernel` needs to know of q, k and v, and its constants."""
    _, N, H, W, D = q.shape
    return {
        **dict(q=q, k=_matrix(k, [W, D]), v=_matrix(v, [W, D])),
        **dict(q_strides=q.stride()[:4], k_places=_places(k), v_places=_places(v), N=N, H=H),
        **dict(W=W, D=D, BLOCK_M=blocks.queries, SPECIALIZE=blocks.variant == "specialized"),
    }


def _is_matrix(x: Tensor) -> bool:
    """Whether the positions of each head of x (B, N, H, W, D) are equidistant rows of one matrix."""
    B, _, H, W, _ = x.shape
    of_image, of_head, of_row, pitch, dense = x.stride()
    return (
        dense == 1
        and (H == 1 or of_row == W * pitch)
        and (B == 1 or of_image % pitch == 0)
        and all(step * x.element_size() % ALIGNMENT == 0 for step in (of_image, of_head, pitch))
        and x.data_ptr() % ALIGNMENT == 0
    )


def _places(x: Tensor) -> tuple[int, int, int]:
    """How many rows of that matrix an image is after the one before; rows and columns a head is."""
    of_image, of_head, _, pitch, _ = x.stride()
    return of_image // pitch, of_head // pitch, of_head % pitch


def _matrix(x: Tensor, box: list[int]) -> TensorDescriptor:
    B, N, H, W, D = x.shape
    image_rows, head_rows, head_columns = _places(x)
    rows, columns = (B - 1) * image_rows + (N - 1) * head_rows + H * W, (N - 1) * head_columns + D
    return TensorDescriptor(x, [rows, columns], [x.stride(3), 1], box)


@triton.jit
def position_terms_kernel(
    q, rel_height, rel_width, row_terms, column_terms, q_strides, N, H, W,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_L: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Both position terms of a query tile: row_terms (B*N, H, H*W) and column_terms (B*N, H*W, W)."""
    positions = H * W
    tile, b, head = _tile_and_image(tl.cdiv(positions, BLOCK_M), N)
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    y, x = m // W, m % W
    image = (b * N + head).to(tl.int64)
    q_tile = _load_rows(
        _map_start(q, q_strides, b, head), y * q_strides[2] + x * q_strides[3], m < positions, D, BLOCK_D
    )
    _store_position_terms(
        q_tile, m, y, x, rel_height, rel_width, row_terms + image * H * positions,
        column_terms + image * positions * W, tile, H, W, D, BLOCK_D, BLOCK_M, BLOCK_L, PRECISION, False,
    )  # fmt: skip


@triton.jit
def map_rows_kernel(
    q, k, v, row_terms, column_terms, out, largest_logit, normalizer, q_strides, k_places, v_places, N, H,
    W: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, SPECIALIZE: tl.constexpr,
):  # fmt: skip
    """One query tile against all rows of keys; results as those of `forward_kernel`. k and v are matrices, see
    `_matrix`."""
    positions = H * W
    tile, b, head = _tile_and_image(tl.cdiv(positions, BLOCK_M), N)
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    valid = m < positions
    image = (b * N + head).to(tl.int64)
    # These two are described here and not by the caller: the compiler halves their boxes where it specializes warps.
    queries = tl.make_tensor_descriptor(
        _map_start(q, q_strides, b, head), [positions, D], [q_strides[3], 1], [BLOCK_M, D]
    )
    columns = tl.make_tensor_descriptor(column_terms + image * positions * W, [positions, W], [W, 1], [BLOCK_M, W])
    q_tile = queries.load([tile * BLOCK_M, 0])
    column_term = columns.load([tile * BLOCK_M, 0]).to(tl.float32)
    k_row, k_column = b * k_places[0] + head * k_places[1], head * k_places[2]
    v_row, v_column = b * v_places[0] + head * v_places[1], head * v_places[2]
    row_terms += image * H * positions + m
    row_term = tl.load(row_terms, mask=valid, other=0.0).to(tl.float32)
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    for key_y in tl.range(0, H, warp_specialize=SPECIALIZE):
        keys = k.load([k_row + key_y * W, k_column])
        logits = tl.dot(q_tile, keys.T) * (D**-0.5 * LOG2E) + column_term  # without the row term
        new_largest = tl.maximum(largest, tl.max(logits, 1) + row_term)
        weights = tl.exp2(logits + (row_term - new_largest)[:, None])
        shrink = tl.exp2(largest - new_largest)
        total = total * shrink + tl.sum(weights, 1)
        # Of the next row of keys, or once more of the last.
        row_term = tl.load(row_terms + tl.minimum(key_y + 1, H - 1) * positions, mask=valid, other=0.0).to(tl.float32)
        values = v.load([v_row + key_y * W, v_column])
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(values.dtype), values, acc)
        largest = new_largest
    scale = 1 / total
    acc = acc * scale[:, None]
    tl.store(largest_logit + image * positions + m, largest, mask=valid)
    tl.store(normalizer + image * positions + m, scale, mask=valid)
    _store_rows(_dense_start(out, b, head, N, positions, D), m * (N * D), valid, acc.to(out.dtype.element_ty), D, D)
