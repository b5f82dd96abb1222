"""Relative attention through PyTorch's `scaled_dot_product_attention`, without any N x N tensor.

Relative logits are plain logits in a larger space: with B = q~ . R_h (H numbers per query) and A = q~ . R_w (W per
query),

    logit = [q~, B, A] . [k, onehot(y'), onehot(x')]

so any fused kernel computes them, and no bias is needed (docs/attention.md). The head grows from D to D + H + W.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from botformer.attention.definition import by_offset
from botformer.attention.graph_capture import captured, jit_traced, refuse_dynamic_axes
from botformer.attention.higher_derivatives import transformed, twice_differentiable

LARGEST_TABLE = 2**24
"""Numbers of a table laid out by position (64 MiB in float32): a side of 362 at a head width of 128."""
_OF_AXIS = {"height": "bnyxd,yud->bnyxu", "width": "bnyxd,xvd->bnyxv"}


def sdpa_attention(
    q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, padding_mask: Tensor | None = None
) -> Tensor:
    """Exact relative attention in O(HW (H + W)) memory: (B, N, H, W, Dv). Arguments as in `relative_attention_2d`."""
    return dot_attention(*relative_parts(q, k, rel_height, rel_width), v, padding_mask)


def relative_parts(
    q: Tensor, k: Tensor, rel_height: Tensor, rel_width: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Query parts [q~, B, A] and key parts [k, onehot(y'), onehot(x')], each (B, N, H, W, any).

    B and A cost O(H W (H + W) D): a query needs only the table entries of its own offsets.
    """
    B, N, H, W, D = q.shape
    q = q * D**-0.5
    row_terms = position_logits(q, rel_height, "height")
    column_terms = position_logits(q, rel_width, "width")
    row = torch.eye(H, dtype=k.dtype, device=k.device)[:, None].expand(B, N, H, W, H)
    column = torch.eye(W, dtype=k.dtype, device=k.device).expand(B, N, H, W, W)
    return (q, row_terms, column_terms), (k, row, column)


def position_logits(q: Tensor, table: Tensor, axis: Literal["height", "width"]) -> Tensor:
    """q (B, N, H, W, D) times the table's entry of every row (B, N, H, W, H), or of every column (B, N, H, W, W)."""
    L, D = q.shape[2 if axis == "height" else 3], q.shape[-1]
    if captured() or L * L * D <= LARGEST_TABLE:
        return torch.einsum(_OF_AXIS[axis], q, by_offset(table))
    # An elongated map: the table laid out by position would be larger than everything else.
    i = torch.arange(L, device=q.device)
    offset = i[None, :] - i[:, None] + L - 1
    return (q @ table.mT).gather(-1, (offset[:, None] if axis == "height" else offset).expand(*q.shape[:-1], L))


def dot_attention(
    query_parts: Sequence[Tensor], key_parts: Sequence[Tensor], v: Tensor, padding_mask: Tensor | None = None
) -> Tensor:
    """Attention whose logit is the sum of the dot products of the parts, pair by pair; nothing is scaled here.

    Args:
        query_parts: tensors (B, N, H, W, any).
        key_parts: as many, each as wide as its partner.
        v: (B, N, H, W, Dv).
        padding_mask: (B, H, W) bool, True = no attention; an image with every key padded gives zeros.

    Returns:
        (B, N, H, W, Dv)
    """
    H, W, Dv = v.shape[-3:]
    query, key = joined(query_parts, key_parts, v, padding_mask)
    operands = query, key, v.flatten(2, 3)
    if jit_traced():  # any width is right, and the largest of some sizes would be fixed in the graph
        refuse_dynamic_axes()
        return without_keyless(F.scaled_dot_product_attention(*operands, scale=1.0).unflatten(2, (H, W)), padding_mask)
    # Shapes that every fused kernel accepts, so that PyTorch chooses one: the CPU's needs v as wide as q, those of CUDA
    # need head widths that are multiples of eight. `sdpa_kernel` would enforce the choice, but it switches kernels on
    # and off for the whole process, other threads included.
    # Written without a negative dividend, which ONNX rounds to zero, and without a maximum where widths tell.
    widest = query.shape[-1] if Dv <= query_parts[0].shape[-1] else max(query.shape[-1], Dv)
    width = (widest + 7) // 8 * 8
    query, key, value = (padded_to(width, x) for x in operands)
    if value.stride(-1) != 1:  # a view of an NCHW map that needed no padding
        value = value.contiguous()
    operands = query, key, value
    if transformed(*operands):
        out = _plain_attention(*operands)
    else:
        out = twice_differentiable(F.scaled_dot_product_attention(*operands, scale=1.0), _plain_attention, operands)
    return without_keyless(out[..., :Dv].unflatten(2, (H, W)), padding_mask)


def _plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1) @ value


def joined(
    query_parts: Sequence[Tensor], key_parts: Sequence[Tensor], v: Tensor, padding_mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The parts side by side as queries and keys (B, N, H*W, sum of the widths), one column more with a mask."""
    queries, keys = list(query_parts), list(key_parts)
    if padding_mask is not None:
        # One more column: 1 for queries, and for padded keys a number far below every logit. It is finite because the
        # gradient of an infinite one is NaN.
        never = torch.finfo(v.dtype).min / 4
        queries.append(torch.ones_like(queries[0][..., :1]))
        keys.append((padding_mask.to(v.dtype) * never)[:, None, ..., None].expand_as(queries[-1]))
    return torch.cat(queries, -1).flatten(2, 3), torch.cat(keys, -1).flatten(2, 3)


def padded_to(width: int, x: Tensor) -> Tensor:
    """Zeros after the last dimension, which is then `width` long."""
    return F.pad(x, (0, width - x.shape[-1]))


def without_keyless(out: Tensor, padding_mask: Tensor | None) -> Tensor:
    """The result (B, N, H, W, Dv), zero for an image whose keys are all padded."""
    if padding_mask is None:
        return out
    return out.masked_fill(padding_mask.flatten(1).all(1)[:, None, None, None, None], 0)


def attention_of_query(query_parts: Sequence[Tensor], key_parts: Sequence[Tensor], query_yx: tuple[int, int]) -> Tensor:
    """The attention weights of one query position over all keys, (B, N, H, W), without an N x N matrix."""
    y, x = query_yx
    logits = torch.stack(
        [torch.einsum("bnd,bnuvd->bnuv", q[:, :, y, x], k) for q, k in zip(query_parts, key_parts, strict=True)]
    ).sum(0)
    return logits.flatten(-2).softmax(-1).unflatten(-1, logits.shape[-2:])
