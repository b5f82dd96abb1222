"""The error budget of every fast backend: twice the error of the definition at the same precision, against float64."""

import torch

from botformer.attention.definition import attention_by_definition
from tests.attention.brute_force import random_inputs

NAMES = ("out", "d_q", "d_k", "d_v", "d_rel_height", "d_rel_width")


def assert_within_budget(attention, shape, dtype, padding_mask=None, device="cpu", layout=lambda q, k, v: (q, k, v)):
    """`attention` takes q, k, v, both tables and the padding; `layout` changes the memory layout of q, k, v."""
    inputs = [tensor.detach().to(device, dtype) for tensor in random_inputs(*shape)]
    inputs[:3] = layout(*inputs[:3])
    upstream = torch.randn(*shape[:4], shape[-1]).to(device, dtype)

    def run(attention, dtype):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        out = attention(*leaves, padding_mask)
        return [out, *torch.autograd.grad(out, leaves, upstream.to(dtype))]

    exact, slow = run(attention_by_definition, torch.float64), run(attention_by_definition, dtype)
    # Uninitialised memory is NaN, so whatever is not written, or read too early, shows.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        fast = run(attention, dtype)
    finally:
        torch.use_deterministic_algorithms(False)
    H, W = shape[2:4]
    # A table with one entry shifts all logits of a query alike: its gradient is zero and what is there is rounding.
    ignored = {"d_rel_height": H == 1, "d_rel_width": W == 1}
    for name, judge, definition, result in zip(NAMES, exact, slow, fast, strict=True):
        assert (result.dtype, result.shape) == (dtype, judge.shape), name
        error, allowed = (result - judge).norm(), 2 * (definition - judge).norm() + torch.finfo(dtype).tiny
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


def corner_padding(B, H, W, nothing_left=False):
    """The lower rows of every image and the right columns of the first; with `nothing_left` all of the last image."""
    padding = torch.zeros(B, H, W, dtype=torch.bool)
    padding[:, H // 2 + 1 :] = True
    padding[0, :, W // 2 + 1 :] = True
    padding[-1] |= nothing_left
    return padding
