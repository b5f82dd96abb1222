"""The most memory that a call holds at a time, as the allocator of the device saw it.

On a GPU that is PyTorch's own count. On the CPU the profiler records every allocation and release of PyTorch's
allocator, those inside an operator included; their running sum is the same count, to the byte and whatever else the
machine does. Memory that a library takes past that allocator (oneDNN's packed weights, OpenMP's threads) is not in it.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes at the peak during the call, beyond those that were held before it; what it returns counts."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    held = peak = 0
    for change in _allocations(call):
        held += change
        peak = max(peak, held)
    return peak


def _allocations(call: Callable[[], Any]) -> list[int]:
    """Bytes taken (positive) and given back (negative), in order.

    From PyTorch's plain profiler, because its newer one writes to the terminal and gives the same records.
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
