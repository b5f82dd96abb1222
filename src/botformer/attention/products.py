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
    if a.stride(-1) != 1:
        return product(b.mT.contiguous(), a.mT).mT
    if not _by_onednn(a, b):
        return torch.bmm(a, b)
    linear = torch.ops.mkldnn._linear_pointwise  # x, w -> x w^T; what has gaps between its rows falls to slow code
    products = [linear(x.contiguous(), _dense(y.mT), None, "none", [], "") for x, y in zip(a, b, strict=True)]
    return products[0][None] if len(products) == 1 else torch.stack(products)


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    G, M, K = a.shape
    return (
        a.dtype == torch.float32
        and (G == 1 or M * K * b.shape[-1] >= WORTH_A_CALL)
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # not measured elsewhere
    )


def _dense(x: Tensor) -> Tensor:
    """Without gaps, row by row or column by column."""
    return x if x.mT.is_contiguous() else x.contiguous()
