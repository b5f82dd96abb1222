"""A receipt: everything somebody needs to believe a number or to measure it again."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "triton", "bottleneck-transformer-pytorch")


def write_receipt(name: str, title: str, command: str, figures: Any, seed: int | None = None, notes: str = "") -> Path:
    """Write results/NAME.json. `figures` is whatever was measured, as JSON; `notes` says what to beware of."""
    receipt = {
        "name": name,
        "title": title,
        "command": command,
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "src")),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": seed,
        "hardware": hardware(),
        "versions": {"python": platform.python_version()} | _versions(),
        "notes": notes,
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(receipt, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory, and the GPU if there is one."""
    found: dict[str, Any] = {"processor": _processor(), "cores": _cores()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9)
    import torch

    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()
