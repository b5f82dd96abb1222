"""Which device a run uses, and how much memory of it."""

import resource
import sys

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from botformer.environment import keep_freed_memory
from botformer.errors import InputError
from botformer.recipes.schema import Run


def open_accelerator(run: Run) -> Accelerator:
    """The device and the processes of a run; "auto" is CUDA, else MPS, else the CPU. Under torchrun, all processes.

    On a CPU this process keeps the memory that it frees, which is faster.

    Raises `InputError` when the device that was asked for is not there.
    """
    # accelerate keeps one state for the whole Python process and refuses another precision or device later on
    AcceleratorState._reset_state(reset_partial_state=True)
    if run.threads:
        torch.set_num_threads(run.threads)
    precision = {"float32": "no", "bf16": "bf16"}[run.precision]
    # Without being told so, accelerate would leave several processes on CPUs alone, each with a run of its own.
    on_cpu = run.device == "cpu" or (run.device == "auto" and not torch.accelerator.is_available())
    if on_cpu:
        keep_freed_memory()
    accelerator = Accelerator(mixed_precision=precision, cpu=on_cpu)
    if run.device not in ("auto", accelerator.device.type):
        raise InputError(
            f"run.device {run.device} is not there: torch {torch.__version__} found {accelerator.device.type}; "
            "use run.device auto, or a torch built for that device"
        )
    return accelerator


def memory_mb(device: torch.device) -> float:
    """Most memory used so far, in MB: the device's where it tells, else this process's."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    if device.type == "mps":
        return round(torch.mps.driver_allocated_memory() / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak / 1e3, 1)  # macOS counts bytes, Linux KiB
