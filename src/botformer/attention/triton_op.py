"""The fused kernels as a custom PyTorch operator: compiled graphs, gradients, FLOP counts.

Importing this needs neither Triton nor a GPU; the kernels are imported when the operator first runs.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from botformer.attention.channels_last import empty_channels_last
from botformer.attention.definition import pooled_attention_by_definition
from botformer.attention.higher_derivatives import beyond_first_order, gradients_of

# The largest width of queries, keys and values for which `triton_launch` has a row.
MAX_HEAD_WIDTH = 128


def triton_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None = None,
    pool: bool = False,
) -> Tensor:
    """Exact relative attention in O(HW (H + W)) memory by the fused kernels: (B, N, H, W, Dv), channels last.

    Arguments as in `relative_attention_2d`; with `pool`, H and W must be even and are halved in the result. q, k and v
    are read without a copy where their last dimension is dense (as in views of a channels_last projection), and copied
    otherwise.
    """
    inputs = q, k, v, rel_height, rel_width
    differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    return relative_attention(*inputs, padding_mask, pool, differentiable)[0]


@torch.library.custom_op("botformer::relative_attention", mutates_args=())
def relative_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None,
    pool: bool,
    differentiable: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result (B, N, H, W, Dv) and what the backward pass recomputes the softmax from, see `forward_kernel`.

    With `pool` the result is (B, N, H/2, W/2, Dv), and the second tensor is what was averaged, (B, N, H, W, Dv), which
    the backward pass needs. It is empty, and costs nothing, if not `differentiable` and without `pool`.
    """
    out, each, largest, normalizer = _outputs(q, k, v, rel_height, rel_width, padding_mask, pool, differentiable)
    if out.numel():
        from botformer.attention.triton_launch import capability_of, forward_launch

        tables = rel_height.contiguous(), rel_width.contiguous()
        forward_launch(
            _readable(q),
            _readable(k),
            _readable(v),
            *tables,
            padding_mask,
            capability_of(q.device),
            out if not pool else each if differentiable else None,
            largest,
            normalizer,
            pooled=out if pool else None,
        )()
    return out, each, largest, normalizer


@relative_attention.register_fake
def _outputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None,
    pool: bool,
    differentiable: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, N, H, W, _ = q.shape
    assert not (pool and (H % 2 or W % 2)), (H, W)
    largest = q.new_empty(B, N, H * W, dtype=torch.float32)
    out = empty_channels_last(v[:, :, ::2, ::2] if pool else v)
    each = empty_channels_last(v) if pool and differentiable else v.new_empty(0)
    return out, each, largest, torch.empty_like(largest)


@torch.library.custom_op("botformer::relative_attention_backward", mutates_args=())
def relative_attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_height: Tensor,
    rel_width: Tensor,
    padding_mask: Tensor | None,
    out: Tensor,
    largest: Tensor,
    normalizer: Tensor,
    d_out: Tensor,
    pool: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and both tables, in their shapes.

    `d_out` is the gradient of the result, pooled or not; `out` is (B, N, H, W, Dv) in any case.
    """
    d_q, d_k, d_v, d_height, d_width = _gradients(q, k, v, rel_height, rel_width)
    if not out.numel():
        return d_q, d_k, d_v, d_height.zero_(), d_width.zero_()
    from botformer.attention.triton_launch import backward_launches, capability_of

    tables = rel_height.contiguous(), rel_width.contiguous()
    maps = _readable(q), _readable(k), _readable(v)
    saved = _readable(out), largest, normalizer, _readable(d_out)
    settings = padding_mask, capability_of(q.device)
    launches, table_parts = backward_launches(*maps, *tables, *settings, *saved, d_q, d_k, d_v, pool=pool)
    for launch in launches:
        launch()
    d_tables = table_parts.sum(0).to(q.dtype)
    return d_q, d_k, d_v, d_height.copy_(d_tables[: len(d_height)]), d_width.copy_(d_tables[len(d_height) :])


@relative_attention_backward.register_fake
def _gradients(
    q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tables = rel_height.new_empty(rel_height.shape), rel_width.new_empty(rel_width.shape)
    return empty_channels_last(q), empty_channels_last(k), empty_channels_last(v), *tables


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.pool, differentiable = inputs
    assert differentiable, "asked for a gradient after promising not to"
    out, each, *softmax = output
    ctx.set_materialize_grads(False)  # no zeros for the results that nobody differentiates
    ctx.save_for_backward(*tensors, each if ctx.pool else out, *softmax)


def _backward(ctx: Any, d_out: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    if not beyond_first_order(d_out):
        return *relative_attention_backward(*ctx.saved_tensors, d_out, ctx.pool), None, None, None
    *inputs, padding_mask = ctx.saved_tensors[:6]
    formula = partial(pooled_attention_by_definition, padding_mask=padding_mask, pool=ctx.pool)
    return *gradients_of(formula, inputs, d_out), None, None, None


relative_attention.register_autograd(_backward, setup_context=_save)


# Multiply-adds times two, counted as in the paper: every query times every entry of both tables (docs/attention.md).
@register_flop_formula(torch.ops.botformer.relative_attention)
def forward_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Forward pass: q.k, weights times v, and the position terms."""
    B, N, H, W, D = q
    return 2 * B * N * H * W * (H * W * (D + v[-1]) + D * (2 * H - 1 + 2 * W - 1))


@register_flop_formula(torch.ops.botformer.relative_attention_backward)
def backward_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
    """Backward pass: the logits again, gradients of weights, v, q and k; the same for the position terms."""
    B, N, H, W, D = q
    return 2 * B * N * H * W * (H * W * (3 * D + 2 * v[-1]) + 3 * D * (2 * H - 1 + 2 * W - 1))


def _readable(x: Tensor) -> Tensor:
    # Not `contiguous()`: with heads of width 1 any stride of that dimension counts as contiguous, and would be kept.
    return x if x.stride(-1) == 1 else x.clone(memory_format=torch.contiguous_format)
