"""Matrix products on the CPU, by the faster of PyTorch's two libraries.

`torch.bmm` goes to the BLAS that PyTorch was built with. On x86-64 that is MKL, which on other makers' processors takes
half of what they can do. oneDNN, which computes the convolutions, does not (results/cpu_choices.json).
"""

import torch
from torch import Tensor

# Multiply-adds a matrix from which one call a matrix beats one call for all of them (results/cpu_choices.json).
WORTH_A_CALL = 2**23


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (G, M, K) @ b (G, K, N): (G, M, N), laid out row by row or column by column as `a` is."""
    if not _lies_row_by_row(a):
        return product(b.mT.contiguous(), a.mT).mT
    if not _by_onednn(a, b):
        return torch.bmm(a, b)
    if len(a) == 1:
        return _by_linear(a[0], b[0])[None]
    out = a.new_empty(*a.shape[:2], b.shape[-1])
    for place, x, y in zip(out, a, b, strict=True):
        place.copy_(_by_linear(x, y))
    return out


def _lies_row_by_row(a: Tensor) -> bool:
    """Strides say nothing of a dimension of length 1: such a matrix lies either way."""
    return a.stride(-1) == 1 or 1 in a.shape[-2:]


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    G, M, K = a.shape
    return (
        a.dtype == torch.float32
        and (G == 1 or M * K * b.shape[-1] >= WORTH_A_CALL)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # not measured elsewhere
    )


def _by_linear(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) @ b (K, N) by oneDNN, which has slow code only for factors with gaps between their rows or columns."""
    weight = b.mT if b.is_contiguous() else b.mT.contiguous()
    return torch.ops.mkldnn._linear_pointwise(a.contiguous(), weight, None, "none", [], "")
