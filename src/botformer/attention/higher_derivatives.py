"""Derivatives that fused kernels do not have: of derivatives, in forward mode, and inside `torch.func` transforms.

Fused kernels, PyTorch's own among them, have one backward pass and no more. Where more is asked for, the same formula
in plain PyTorch operators is differentiated instead. It builds the (HW)^2 matrix.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor  # pyright: ignore[reportMissingModuleSource]
from torch.autograd.forward_ad import unpack_dual

from botformer.attention.autocast import without_autocast
from botformer.attention.graph_capture import jit_traced


def transformed(*inputs: Tensor) -> bool:
    """Whether a `torch.func` transform is active (vmap, grad, jvp, ...) or an input carries a forward-mode tangent."""
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling() or jit_traced():
        return False
    return any(unpack_dual(x).tangent is not None for x in inputs)


def beyond_first_order(d_out: Tensor) -> bool:
    """Asked in a backward pass: is it to be differentiated again (`create_graph`), or vectorised?"""
    return (
        torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or (not torch.compiler.is_compiling() and is_legacy_batchedtensor(d_out))
    )


def gradients_of(formula: Callable[..., Tensor], inputs: Sequence[Tensor], d_out: Tensor) -> list[Tensor | None]:
    """Gradients of `formula(*inputs)` that can be differentiated again; None for inputs that need none."""
    needed = [x.requires_grad for x in inputs]
    with without_autocast(d_out.device):  # somebody's, around `backward()`, would round
        with torch.enable_grad():
            aliases = [x.view_as(x) for x in inputs]  # of each its own gradient, should two inputs be the same tensor
            out = formula(*aliases)
        wanted = [x for x, need in zip(aliases, needed, strict=True) if need]
        found = iter(torch.autograd.grad(out, wanted, d_out, create_graph=torch.is_grad_enabled()))
    return [next(found) if need else None for need in needed]


def twice_differentiable(fused: Tensor, formula: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """`fused`, the value of `formula(*inputs)` by a kernel; beyond first order its derivatives are the formula's.

    Costs nothing else: the inputs are kept for the kernel's own backward pass anyway.
    """
    eager = not (torch.compiler.is_compiling() or jit_traced() or torch._C._are_functorch_transforms_active())
    return _FormulaBeyondFirstOrder.apply(fused, formula, *inputs) if eager and fused.requires_grad else fused


class _FormulaBeyondFirstOrder(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, fused: Tensor, formula: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.formula = formula
        ctx.save_for_backward(*inputs)
        return fused.view_as(fused)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (d_out,) = grad_outputs
        if not beyond_first_order(d_out):
            return d_out, None, *(None for _ in ctx.saved_tensors)
        return None, None, *gradients_of(ctx.formula, ctx.saved_tensors, d_out)
