"""The error budget of every fast backend: twice the error of the definition at the same precision, against float64."""

import torch

from botformer.attention.definition import attention_by_definition, average_cells
from tests.attention.brute_force import random_inputs

NAMES = ("out", "d_q", "d_k", "d_v", "d_rel_height", "d_rel_width")


def assert_within_budget(
    attention, shape, dtype, padding_mask=None, device="cpu", layout=lambda q, k, v: (q, k, v), pool=False
):
    """`attention` takes q, k, v, both tables and the padding; `layout` changes the memory layout of q, k, v.

    With `pool` its results are averages over cells of 2x2, and so are the definition's here.
    """
    B, N, H, W, _, Dv = shape
    inputs = [tensor.detach().to(device, dtype) for tensor in random_inputs(*shape)]
    inputs[:3] = layout(*inputs[:3])
    upstream = torch.randn(B, N, H // (1 + pool), W // (1 + pool), Dv).to(device, dtype)

    def definition(*inputs):
        out = attention_by_definition(*inputs)
        return average_cells(out) if pool else out

    def run(attention, dtype):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        out = attention(*leaves, padding_mask)
        return [out, *torch.autograd.grad(out, leaves, upstream.to(dtype))]

    exact, slow = run(definition, torch.float64), run(definition, dtype)
    # Uninitialised memory is NaN, so whatever is not written, or read too early, shows.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        fast = run(attention, dtype)
    finally:
        torch.use_deterministic_algorithms(False)
    # A table with one entry shifts all logits of a query alike: its gradient is zero and what is there is rounding.
    ignored = {"d_rel_height": H == 1, "d_rel_width": W == 1}
    for name, judge, plain, result in zip(NAMES, exact, slow, fast, strict=True):
        assert (result.dtype, result.shape) == (dtype, judge.shape), name
        error, allowed = (result - judge).norm(), 2 * (plain - judge).norm() + torch.finfo(dtype).tiny
        if ignored.get(name):
            allowed = 4 * torch.finfo(dtype).eps * exact[1].norm() * (H * W) ** 0.5
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


def channels_last(q, k, v):
    """q, k, v (B, N, H, W, any) as views of one channels_last projection: only the last stride is 1."""
    B, N, H, W, D = q.shape
    widest = max(D, v.shape[-1])
    memory = q.new_empty(B, H, W, 3, N, widest).permute(3, 0, 4, 1, 2, 5)
    parts = memory[0, ..., :D], memory[1, ..., :D], memory[2, ..., : v.shape[-1]]
    for part, values in zip(parts, (q, k, v), strict=True):
        part.copy_(values)
    return parts


def channels_first(q, k, v):
    """q, k, v (B, N, H, W, any) as views of NCHW maps: positions are dense, not the last dimension."""
    return tuple(x.transpose(3, 4).transpose(2, 3).contiguous().transpose(2, 3).transpose(3, 4) for x in (q, k, v))


def corner_padding(B, H, W, nothing_left=False):
    """The lower rows of every image and the right columns of the first; with `nothing_left` all of the last image."""
    padding = torch.zeros(B, H, W, dtype=torch.bool)
    padding[:, H // 2 + 1 :] = True
    padding[0, :, W // 2 + 1 :] = True
    padding[-1] |= nothing_left
    return padding
