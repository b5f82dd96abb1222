"""Which precision trains faster on this machine: measured once, then remembered."""

import logging
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from botformer.atomic_write import write_json
from botformer.environment import cache_folder, hardware
from botformer.read_file import read_json

log = logging.getLogger(__name__)

Precision = Literal["float32", "bf16"]

_PRECISIONS = get_args(Precision)
_WORTH_IT = 1.1
"""bf16 has 8 bits where float32 has 24: it has to be this much faster."""
_TURNS, _SECONDS = 3, 0.1
"""Of each precision, and how long one takes."""


def fastest_precision(device: torch.device) -> Precision:
    """What `run.precision` "auto" stands for in this process.

    Measured in less than a second: forward and backward of a bottleneck block. The answer is kept in the user's cache
    folder (XDG_CACHE_HOME), per device and version of torch; where that cannot be written, in this process alone.
    """
    return _remembered(device.type)


@lru_cache
def _remembered(device_type: str) -> Precision:
    device = torch.device(device_type)
    key = f"{_name(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads"
    file = cache_folder() / "precision.json"
    known = _read(file)
    if known.get(key) in _PRECISIONS:
        return known[key]
    seconds = measure(device)
    answer: Precision = "bf16" if seconds["bf16"] * _WORTH_IT < seconds["float32"] else "float32"
    log.info(
        "run.precision auto is %s: on %s a step takes %.1f ms in float32 and %.1f ms in bf16",
        answer,
        _name(device),
        1e3 * seconds["float32"],
        1e3 * seconds["bf16"],
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known | {key: answer})
    except OSError:  # it is measured again next time
        pass
    return answer


def measure(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Seconds of a training step of one block in each precision; infinite where the device cannot compute in it."""
    with torch.random.fork_rng(devices=[]):
        layers = [
            layer
            for channels, kernel in ((64, 1), (64, 3), (256, 1))
            for layer in (
                nn.LazyConv2d(channels, kernel, padding=kernel // 2, bias=False),
                nn.LazyBatchNorm2d(),
                nn.ReLU(),
            )
        ]
        network = nn.Sequential(*layers)
        network(torch.zeros(2, 256, 4, 4))  # the number of channels of every layer
        # Enough that a GPU is busy with arithmetic, not with being told what to do.
        images = torch.randn(4 if device.type == "cpu" else 256, 256, 28, 28)
    network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = images.to(device, memory_format=torch.channels_last)
    dtypes = {"float32": torch.float32, "bf16": torch.bfloat16}
    # In turns: what else the machine does meanwhile should not decide for all runs to come.
    turns = [{name: _seconds(network, images, dtype, clock) for name, dtype in dtypes.items()} for _ in range(_TURNS)]
    return {name: min(turn[name] for turn in turns) for name in dtypes}


def _seconds(network: nn.Module, images: torch.Tensor, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Of the fastest step."""
    device = images.device

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = network(images).float().square().mean()
        loss.backward()
        float(loss.detach())  # waits for the device

    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(False):
        return float("inf")  # emulated at best
    try:
        step()  # compiles, and touches the memory
        fastest, end = float("inf"), clock() + _SECONDS
        while clock() < end:
            begin = clock()
            step()
            fastest = min(fastest, clock() - begin)
    except RuntimeError:  # the device lacks an operation in this precision
        return float("inf")
    return fastest


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {hardware()['processor']}"


def _read(file: Path) -> dict[str, Precision]:
    try:
        content = read_json(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
