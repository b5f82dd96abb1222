"""The machine's peaks, measured. A fraction of a peak says more about a kernel than milliseconds do."""

from dataclasses import dataclass

import torch

from botformer.attention.products import product
from botformer.benchmark.timing import Call, take_turns

_SIDE = {"cpu": 2048, "cuda": 8192}
_COPY_BYTES = {"cpu": 2**27, "cuda": 2**31}


@dataclass(frozen=True)
class Peaks:
    matmul_gflops: float
    """Of a large square matrix product in the given dtype, by the fastest of PyTorch's libraries. One multiply-add
    counts as two operations."""
    copy_gb_per_s: float
    """Of a large copy; bytes read plus bytes written."""


def measure_peaks(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> Peaks:
    """The best of a few rounds: a peak is what was reached once."""
    side, size = _SIDE[device.type], _COPY_BYTES[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    calls: dict[str, Call] = {"matmul": lambda _: a @ b, "copy": lambda _: target.copy_(source)}
    if device.type == "cpu":
        calls["product"] = lambda _: product(a[None], b[None])
    times = take_turns(calls, rounds, device)
    fastest = min(min(times[name]) for name in ("matmul", "product") if name in times)
    return Peaks(
        matmul_gflops=round(2 * side**3 / fastest / 1e6, 1),
        copy_gb_per_s=round(2 * size / min(times["copy"]) / 1e6, 1),
    )
