"""The operation as a double loop over positions in float64, written from the paper's formula and nothing else."""

import math

import torch
from torch import Tensor


def attention_by_double_loop(
    q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, padding_mask: Tensor | None = None
) -> Tensor:
    B, N, H, W, D = q.shape
    out = torch.zeros(B, N, H, W, v.shape[-1], dtype=torch.float64)
    q, k, v, rel_height, rel_width = (t.detach().double() for t in (q, k, v, rel_height, rel_width))
    cells = [(y, x) for y in range(H) for x in range(W)]
    for b in range(B):
        keys = [c for c in cells if padding_mask is None or not padding_mask[b, c[0], c[1]]]
        if not keys:
            continue
        for n in range(N):
            for y, x in cells:
                query = q[b, n, y, x] / math.sqrt(D)
                logits = [
                    float(query @ (k[b, n, u, w] + rel_height[u - y + H - 1] + rel_width[w - x + W - 1]))
                    for u, w in keys
                ]
                top = max(logits)
                weights = [math.exp(logit - top) for logit in logits]
                for weight, (u, w) in zip(weights, keys, strict=True):
                    out[b, n, y, x] += weight / sum(weights) * v[b, n, u, w]
    return out


def random_inputs(B: int, N: int, H: int, W: int, D: int, Dv: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v, rel_height, rel_width with gradients."""
    shapes = [(B, N, H, W, D), (B, N, H, W, D), (B, N, H, W, Dv), (2 * H - 1, D), (2 * W - 1, D)]
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]
