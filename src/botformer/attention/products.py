"""Batched matrix products on the CPU, by the faster of the two libraries in PyTorch.

`torch.bmm` calls the BLAS library that PyTorch was built with. On x86-64 that is MKL, which was about half as
fast as oneDNN, which computes the convolutions, on the AMD processor measured (results/cpu_choices.json).
"""

import torch
from torch import Tensor

# From this many multiply-adds per matrix, one call per matrix beats one call for all (results/cpu_choices.json).
CALL_PER_MATRIX_FROM = 2**23


def product(a: Tensor, b: Tensor) -> Tensor:
    """a (G, M, K) @ b (G, K, N): (G, M, N), stored row by row or column by column as `a` is."""
    if not _is_row_major(a):
        return product(b.mT.contiguous(), a.mT).mT
    if not _onednn_is_faster(a, b):
        return torch.bmm(a, b)
    if len(a) == 1:
        return _onednn_product(a[0], b[0])[None]
    out = a.new_empty(*a.shape[:2], b.shape[-1])
    for result, x, y in zip(out, a, b, strict=True):
        result.copy_(_onednn_product(x, y))
    return out


def _is_row_major(a: Tensor) -> bool:
    """The stride of a dimension of length 1 means nothing: such a matrix counts as row-major."""
    return a.stride(-1) == 1 or 1 in a.shape[-2:]


def _onednn_is_faster(a: Tensor, b: Tensor) -> bool:
    G, M, K = a.shape
    return (
        a.dtype == torch.float32
        and (G == 1 or M * K * b.shape[-1] >= CALL_PER_MATRIX_FROM)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # not measured elsewhere
    )


def _onednn_product(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K) @ b (K, N) by oneDNN, which is slow only where a factor has gaps between its rows or columns."""
    weight = b.mT if b.is_contiguous() else b.mT.contiguous()
    return torch.ops.mkldnn._linear_pointwise(a.contiguous(), weight, None, "none", [], "")
