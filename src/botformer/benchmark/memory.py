"""Peak memory of a call, as the device's allocator counts it.

On a GPU this is PyTorch's own count. On the CPU the profiler records every allocation and release of PyTorch's
allocator, including those inside an operator; their running sum is the same count, exact to the byte.
It does not include memory that a library allocates by other means (oneDNN's packed weights, OpenMP's threads).
"""

import gc
from collections.abc import Callable
from typing import Any

import torch


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Peak bytes during the call beyond those allocated before it. What the call returns counts."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    allocated = peak = 0
    for change in _allocations(call):
        allocated += change
        peak = max(peak, allocated)
    return peak


def _allocations(call: Callable[[], Any]) -> list[int]:
    """Bytes allocated (positive) and freed (negative), in order.

    From PyTorch's plain profiler, because the newer one prints to the terminal and records the same.
    """
    recorder: Any = torch.autograd  # none of what follows is declared
    experimental = recorder.profiler._ExperimentalConfig()
    # Not shapes, but memory; not stacks, FLOPs or modules.
    recorder._enable_profiler_legacy(
        recorder.ProfilerConfig(recorder.ProfilerState.CPU, False, True, False, False, False, experimental)
    )
    try:
        call()
    finally:
        threads = recorder._disable_profiler_legacy()
    return [r.cpu_memory_usage() for records in threads for r in records if r.kind() == "memory_alloc"]
