"""A receipt: a measurement with all that is needed to check or repeat it."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "triton", "bottleneck-transformer-pytorch")
_ROOT = Path(__file__).resolve().parents[3]  # of the repository, where the package is in one


def write_receipt(
    path: Path,
    title: str,
    command: str,
    figures: Any,
    seed: int | None = None,
    notes: str = "",
    measured: dict[str, Any] | None = None,
) -> Path:
    """Write the receipt `path` (NAME.json) and return the path.

    Args:
        figures: what was measured, as JSON: one row, or a list of rows.
        notes: caveats.
        measured: more about the hardware, such as its measured peaks.
    """
    receipt = {
        "name": path.stem,
        "title": title,
        "command": command,
        "commit": _commit(),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "src")),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": seed,
        "hardware": hardware() | (measured or {}),
        "versions": {"python": platform.python_version()} | _versions(),
        "notes": notes,
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(receipt, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def hardware() -> dict[str, Any]:
    """Processor, cores this process may use, memory, and the GPU if there is one."""
    found: dict[str, Any] = {"processor": _processor(), "cores": cores()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9)
    import torch

    found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return found


def cores() -> int:
    """Cores that this process may use."""
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


def _commit() -> str:
    """Of the repository; in a copy without history, that of BOTFORMER_COMMIT. Empty if unknown."""
    return _git("rev-parse", "HEAD") or os.environ.get("BOTFORMER_COMMIT", "")


def _git(*arguments: str) -> str:
    """The output of git in the repository; empty where there is no repository or no git."""
    if not (_ROOT / ".git").exists():
        return ""
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
