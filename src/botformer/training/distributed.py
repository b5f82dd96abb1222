"""The device, the processes and the precision of a run, and how much memory it uses."""

import resource
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from botformer.environment import keep_freed_memory
from botformer.errors import InputError, no_device
from botformer.recipes.schema import Run
from botformer.training.precision import Precision, fastest_precision

T = TypeVar("T")

NO_ANSWER = timedelta(minutes=10)
"""How long processes wait for one another before a run ends, over gloo as over NCCL. A process that dies is noticed at
once, by its connections and by torchrun; this is for one that hangs. It must be longer than any process may be busy
alone: the first one with checkpoints and curves, each with its part of an evaluation, or with files on a slow disk."""


class Accelerator:
    """Where a run computes, with whom and in which precision.

    accelerate starts and knows the processes. Its own `Accelerator` keeps device and precision for the whole Python
    process; here each run has its own, so that several can follow each other.
    """

    def __init__(self, device: torch.device, precision: Precision, processes: PartialState):
        self.device = device
        self.precision = precision
        self._processes = processes
        self.process_index: int = processes.process_index
        self.num_processes: int = processes.num_processes
        self.is_main_process: bool = processes.is_main_process

    @property
    def non_blocking(self) -> bool:
        """Whether copies to and from the device may go on while the program does: CUDA alone keeps the memory of a copy
        until it is done, and has events that tell when that is. Others would read what is not written yet."""
        return self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[object]:
        """Inside, operations compute in the run's precision; weights stay as they are."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def distribute(self, module: nn.Module, has_unused_parameters: bool) -> nn.Module:
        """`module`, exchanging its gradients with the other processes, which are given the weights of the first."""
        if self.num_processes == 1:
            return module
        devices = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(module, devices, find_unused_parameters=has_unused_parameters)

    def no_sync(self, module: nn.Module) -> AbstractContextManager[object]:
        """Inside, what `distribute` gave exchanges no gradients."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes."""
        mean = reduce(tensor, reduction="mean")
        assert isinstance(mean, Tensor)
        return mean

    def fractions(self, images: list[int]) -> Sequence[float | Tensor]:
        """Images in the parts of this process's batch -> what each part counts in the mean over the processes: its
        fraction of the images of all, times the number of processes."""
        if self.num_processes == 1:
            return [count / sum(images) for count in images]
        own = torch.tensor(images, dtype=torch.float32, device=self.device)
        everywhere = reduce(own, reduction="sum")
        assert isinstance(everywhere, Tensor)
        return (own * self.num_processes / everywhere.sum()).unbind()

    def of_main_process(self, value: T) -> T:
        """The value that the main process has, in every process; it is pickled."""
        return broadcast_object_list([value])[0] if self.num_processes > 1 else value

    def wait_for_everyone(self) -> None:
        self._processes.wait_for_everyone()


def open_accelerator(run: Run) -> Accelerator:
    """The device and the processes of a run; "auto" is CUDA, else MPS, else the CPU. Under torchrun, all processes.

    On a CPU this process keeps the memory that it frees, which is faster.

    Precision "auto" becomes the one that trains faster here.

    Raises `InputError` when the device that was asked for is not there, or cannot compute in the precision.
    """
    if run.threads:
        torch.set_num_threads(run.threads)
    on_cpu = run.device == "cpu" or (run.device == "auto" and not torch.accelerator.is_available())
    if on_cpu:
        keep_freed_memory()
    # Without being told so, accelerate would leave several processes on CPUs alone, each with a run of its own.
    processes = PartialState(cpu=on_cpu, timeout=NO_ANSWER)
    device = processes.device if processes.num_processes > 1 else _own_device(on_cpu)
    assert device is not None
    if run.device not in ("auto", device.type):
        raise no_device(run.device, device.type, torch.__version__)
    if run.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise InputError(
            f"run.precision bf16: {torch.cuda.get_device_name(device)} cannot compute in it; use run.precision float32"
        )
    if run.precision != "auto":
        return Accelerator(device, run.precision, processes)
    accelerator = Accelerator(device, fastest_precision(device), processes)
    accelerator.precision = accelerator.of_main_process(accelerator.precision)
    return accelerator


def memory_mb(device: torch.device) -> float:
    """Most memory used so far, in MB: the device's where it is known, else this process's."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    if device.type == "mps":
        return round(torch.mps.driver_allocated_memory() / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak / 1e3, 1)  # macOS counts bytes, Linux KiB


def _own_device(on_cpu: bool) -> torch.device:
    """Of a process that is alone."""
    return (None if on_cpu else torch.accelerator.current_accelerator(check_available=True)) or torch.device("cpu")
