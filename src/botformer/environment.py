"""The machine and the installed packages: versions, cores, hardware, and what becomes of freed memory."""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botformer import __version__

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "numpy",
    "safetensors",
    "triton",
    "bottleneck-transformer-pytorch",
)
"""What results depend on, or are compared with."""

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def versions(device: "torch.device | None" = None, more: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, botformer and the installed ones of `PACKAGES` and `more`; and what `device` is, if given."""
    import torch

    found = {"python": platform.python_version(), "botformer": __version__}
    for package in (*PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["torch"] = torch.__version__  # which build it is, too
    if device is None:
        return found
    if device.type == "cuda":
        return found | {"cuda": str(torch.version.cuda), "device": torch.cuda.get_device_name(device)}
    return found | {"device": f"{device.type} {platform.machine()}"}


def hardware() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, and the GPU if there is one."""
    import torch

    found: dict[str, Any] = {"processor": _processor(), "cores": cores()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9)
    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


_CGROUP = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Cores that this process may use; in a container no more than its share of CPU time comes to."""
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(seen, _share_of_cpu_time(_CGROUP)))


def _share_of_cpu_time(file: Path) -> int:
    """Rounded up to whole cores; as good as no limit where the file sets none, or is not there."""
    try:
        limit, period = file.read_text(encoding="ascii").split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):  # "max" is not a number
        return sys.maxsize


def cache_folder() -> Path:
    """For what can be made again: botformer in the user's cache folder (XDG_CACHE_HOME). It may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "botformer"


def keep_freed_memory() -> None:
    """From now on keep freed memory in this process instead of returning it to the system; glibc alone can.

    By default every tensor beyond 32 MiB is made of new pages, each of which the system clears at its first touch: with
    large images a fifth of the time of a training step and more (results/cpu_choices.json). The price is memory
    that other processes cannot have meanwhile.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
