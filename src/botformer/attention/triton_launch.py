"""Launches of the fused kernels: block sizes, grids and scratch memory.

Notation as in `triton_kernels`. A `Launch` is plain data until it is called, so tests can compile exactly what would
run, for a GPU that is not there.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from botformer.attention import triton_kernels as kernels
from botformer.attention.triton_blocks import Blocks, Capability, Kernel, find_blocks

TABLE_SPLITS = 64  # partial sums of the tables' gradients: enough programs to fill a GPU, in constant memory


@dataclass(frozen=True)
class Launch:
    """A kernel (`function`) with its grid and arguments; calling it runs it on the device of its tensors."""

    function: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    blocks: Blocks

    @property
    def options(self) -> dict[str, Any]:
        """Of Triton's compiler."""
        return dict(num_warps=self.blocks.warps, num_stages=self.blocks.stages, enable_fp_fusion=True)

    def __call__(self) -> None:
        device = self.arguments["q"].device
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self.function[self.grid](**self.arguments, **self.options)

    def compile(self) -> None:
        """Into Triton's cache, without running anything."""
        self.function.warmup(**self.arguments, **self.options, grid=self.grid)


def forward_launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None,
    capability: Capability,
    out: Tensor | None,
    largest: Tensor,
    normalizer: Tensor,
    blocks: Blocks | None = None,
    pooled: Tensor | None = None,
) -> Launch:
    """Fills out, (B, N, H, W, DV) stored as (B, H, W, N, DV), and largest and normalizer (B, N, H * W), float32.

    With `pooled`, (B, N, H/2, W/2, DV) stored likewise, it fills that too, and `out` may be None."""
    B, N, H, W, _ = q.shape
    pool = pooled is not None
    blocks = blocks or _blocks("forward", q, v, capability, pool)
    arguments = {
        **dict(q=q, k=k, v=v, rel_height=rel_height, rel_width=rel_width, padding_mask=_bytes(padding_mask)),
        **dict(out=out, pooled=pooled, largest_logit=largest, normalizer=normalizer),
        **dict(row_terms=q.new_empty(B, N, H, H * W), column_terms=q.new_empty(B, N, H * W, W)),
        **_strides(q=q, k=k, v=v),
        **_sizes(q, v, blocks, pool),
        "BLOCK_L": _table_block(q),
    }
    grid = (_parts(H * W, blocks.queries) * B * N,)
    return Launch(kernels.forward_kernel, grid, arguments, blocks)


def backward_launches(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None,
    capability: Capability,
    out: Tensor,
    largest: Tensor,
    normalizer: Tensor,
    d_out: Tensor,
    d_q: Tensor,
    d_k: Tensor,
    d_v: Tensor,
    query_blocks: Blocks | None = None,
    key_blocks: Blocks | None = None,
    pool: bool = False,
) -> tuple[list[Launch], Tensor]:
    """Launches to be run in order. They fill d_q, d_k and d_v, each stored as (B, H, W, N, D), and partial sums of the
    tables' gradients (splits, 2H-1 + 2W-1, D), float32, to be added up; the height table comes first.

    With `pool`, d_out is (B, N, H/2, W/2, DV); out, largest and normalizer are still those of each query."""
    B, N, H, W, D = q.shape
    query_blocks = query_blocks or _blocks("query_gradient", q, v, capability, pool)
    key_blocks = key_blocks or _blocks("key_gradient", q, v, capability, pool)
    saved = dict(d_out=d_out, largest_logit=largest, normalizer=normalizer, delta=torch.empty_like(largest))
    terms = dict(row_terms=q.new_empty(B, N, H, H * W), column_terms=q.new_empty(B, N, H * W, W))
    _, block_x = key_tile(H, W, query_blocks.keys)
    # Over several blocks of columns the gradients of the row terms are accumulated in memory: in float32.
    d_row_terms = terms["row_terms"].new_empty(B, N, H, H * W, dtype=torch.float32 if block_x < W else q.dtype)
    d_terms = dict(d_row_terms=d_row_terms, d_column_terms=torch.empty_like(terms["column_terms"]))
    padding = _bytes(padding_mask)

    query_launch = Launch(
        kernels.query_gradient_kernel,
        (_parts(H * W, query_blocks.queries) * B * N,),
        {
            **dict(q=q, k=k, v=v, rel_height=rel_height, rel_width=rel_width, padding_mask=padding, out=out, d_q=d_q),
            **saved,
            **terms,
            **d_terms,
            **_strides(q=q, k=k, v=v, out=out, d_out=d_out),
            **_sizes(q, v, query_blocks, pool),
            "BLOCK_L": _table_block(q),
        },
        query_blocks,
    )
    block_y, block_x = key_tile(H, W, key_blocks.keys)
    key_launch = Launch(
        kernels.key_gradient_kernel,
        (_parts(H, block_y) * _parts(W, block_x) * B * N,),
        {
            **dict(q=q, k=k, v=v, padding_mask=padding, d_k=d_k, d_v=d_v),
            **saved,
            **terms,
            **_strides(q=q, k=k, v=v, d_out=d_out),
            **_sizes(q, v, key_blocks, pool),
        },
        key_blocks,
    )
    block_l = _table_block(q)
    table_blocks = Blocks(64, block_l, 4, 2) if q.dtype.itemsize == 2 else Blocks(16, block_l, 4, 2)
    splits = min(TABLE_SPLITS, _parts(H * W, table_blocks.queries) * B * N)
    partial = q.new_empty(splits, 2 * H - 1 + 2 * W - 1, D, dtype=torch.float32)
    table_launch = Launch(
        kernels.table_gradient_kernel,
        (_parts(2 * H - 1, block_l) + _parts(2 * W - 1, block_l), splits),
        {
            **dict(q=q, partial=partial, B=B, N=N, H=H, W=W, splits=splits),
            **d_terms,
            **_strides(q=q),
            **dict(D=D, BLOCK_D=_block(D), BLOCK_M=table_blocks.queries, BLOCK_L=block_l),
            **dict(PRECISION=_precision(q), POOL=pool),
        },
        table_blocks,
    )
    return [query_launch, key_launch, table_launch], partial


@lru_cache  # this is asked several times at every launch
def key_tile(H: int, W: int, keys: int) -> tuple[int, int]:
    """Rows and columns of a tile of that many keys: the pair, at least eight columns wide, that exceeds the map
    least, and of those the widest."""
    widths = [2**power for power in range(3, keys.bit_length())]
    x = min(reversed(widths), key=lambda x: _parts(W, x) * x * _parts(H, keys // x) * (keys // x))
    return keys // x, x


def _parts(length: int, size: int) -> int:
    """How many parts of that size cover a length; Triton's own takes ten times as long on the host."""
    return -(-length // size)


def capability_of(device: torch.device) -> Capability:
    """The compute capability of a device; the interpreter counts as 9.0."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)


def _blocks(kernel: Kernel, q: Tensor, v: Tensor, capability: Capability, pool: bool) -> Blocks:
    H, W, D = q.shape[2:]
    dtype = str(q.dtype).removeprefix("torch.")
    return find_blocks(kernel, capability, dtype, max(D, v.shape[-1]), (H, W), pool)


def _table_block(q: Tensor) -> int:
    """Entries of a position table per block."""
    return 32 if q.dtype.itemsize == 2 else 16


def _block(dim: int) -> int:
    return max(16, 1 << (dim - 1).bit_length())


def _precision(q: Tensor) -> str:
    wanted = q.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if wanted else "ieee"


def _bytes(padding_mask: Tensor | None) -> Tensor | None:
    return None if padding_mask is None else padding_mask.contiguous().view(torch.uint8)


def _strides(**tensors: Tensor) -> dict[str, tuple[int, ...]]:
    for name, tensor in tensors.items():
        assert tensor.stride(-1) == 1, name
    return {f"{name}_strides": tensor.stride()[:4] for name, tensor in tensors.items()}


def _sizes(q: Tensor, v: Tensor, blocks: Blocks, pool: bool) -> dict[str, Any]:
    _, N, H, W, D = q.shape
    block_y, block_x = key_tile(H, W, blocks.keys)
    return {
        **dict(N=N, H=H, W=W, D=D, DV=v.shape[-1], BLOCK_D=_block(D), BLOCK_DV=_block(v.shape[-1])),
        **dict(BLOCK_M=blocks.queries, BLOCK_Y=block_y, BLOCK_X=block_x, PRECISION=_precision(q), POOL=pool),
    }
