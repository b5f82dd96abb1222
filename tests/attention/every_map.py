"""The CPU's attention against the definition on every map size: forward, all gradients, pooled, in three layouts.

python -m tests.attention.every_map [LONGEST_SIDE]    (100 by default, which takes hours on two cores)
"""

import sys
import time
from collections.abc import Callable, Sequence
from itertools import product as pairs

import torch
from torch import Tensor

from botformer.attention.definition import attention_by_definition
from botformer.attention.operation import average_cells
from botformer.attention.tiled import tiled_attention
from tests.attention.brute_force import random_inputs
from tests.attention.error_budget import NAMES

DIM, VALUE_DIM = 2, 3
LAYOUTS: dict[str, Callable[..., Sequence[Tensor]]] = {
    "contiguous": lambda *maps: [tensor.contiguous() for tensor in maps],
    "channels_last": lambda *maps: [
        tensor.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4) for tensor in maps
    ],
    "NCHW": lambda *maps: [tensor.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2) for tensor in maps],
}
"""Of queries, keys and values, and of the gradient that comes back."""


def wrong_on_map(H: int, W: int) -> list[str]:
    """What is wrong on an H x W map; empty where every variant gives the definition's results."""
    torch.manual_seed(H * 1000 + W)
    inputs = [tensor.detach() for tensor in random_inputs(1, 2, H, W, DIM, VALUE_DIM, torch.float32)]
    leaves = [tensor.double().requires_grad_() for tensor in inputs]
    plain = attention_by_definition(*leaves)
    found = []
    for pool in (False, True)[: 1 + (H % 2 == 0 and W % 2 == 0)]:
        judge = average_cells(plain) if pool else plain
        upstream = torch.randn_like(judge)
        exact = [judge.detach(), *torch.autograd.grad(judge, leaves, upstream, retain_graph=True)]
        for name, layout in LAYOUTS.items():
            maps = layout(*inputs[:3])
            found += [
                f"{H}x{W}, pool {pool}, {name}: {problem}"
                for problem in _problems([*maps, *inputs[3:]], layout(upstream.float())[0], exact, pool)
            ]
    return found


def _problems(inputs: list[Tensor], upstream: Tensor, exact: list[Tensor], pool: bool) -> list[str]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    try:
        out = tiled_attention(*leaves, None, pool)
        results = [out.detach(), *torch.autograd.grad(out, leaves, upstream)]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"[:200]]
    # A one-entry table shifts all logits of a query alike: its gradient is zero, and rounding is all there is.
    scale = [max(float(judge.abs().max()), 1.0) for judge in exact]
    return [
        f"{name} is off by {float((result - judge).abs().max()) / size:.2g}"
        for name, result, judge, size in zip(NAMES, results, exact, scale, strict=True)
        if not float((result - judge).abs().max()) <= 1e-4 * size
    ]


def main(longest: int) -> int:
    started, wrong = time.monotonic(), []
    maps = sorted(pairs(range(1, longest + 1), repeat=2), key=lambda size: size[0] * size[1])
    for number, (H, W) in enumerate(maps, 1):
        wrong += wrong_on_map(H, W)
        if number % 100 == 0:
            print(f"{number}/{len(maps)} maps, {time.monotonic() - started:.0f} s, {len(wrong)} wrong", flush=True)
    print("\n".join(wrong) or f"all {len(maps)} maps agree with the definition")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
