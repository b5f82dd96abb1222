"""A receipt: a measurement with all that is needed to check or repeat it."""

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botformer.atomic_write import write_json
from botformer.environment import hardware, versions

# Tables that a GPU fills: results themselves, which are collected beside the receipts.
_MEASURED = tuple(f":!src/botformer/attention/{table}.json" for table in ("triton_tuning", "cuda_backends"))
_RUNTIMES = ("onnxruntime", "openvino", "nncf", "torchao", "executorch")
_ROOT = Path(__file__).resolve().parents[3]  # of the repository, where the package is in one


def write_receipt(
    path: Path,
    title: str,
    command: str,
    figures: Any,
    seed: int | None = None,
    notes: str = "",
    measured: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
) -> Path:
    """Write the receipt `path` (NAME.json) and return the path.

    Args:
        figures: what was measured, as JSON: one row, or a list of rows.
        notes: caveats.
        measured: more about the hardware, such as its measured peaks.
        origin: as `receipt_origin` returned it earlier, where the receipt is written several times.
    """
    origin = origin or receipt_origin()
    receipt = {
        "name": path.stem,
        "title": title,
        "command": command,
        "commit": origin["commit"],
        "uncommitted_changes": origin["uncommitted_changes"],
        "date": datetime.now(UTC).date().isoformat(),
        "seed": seed,
        "hardware": origin["hardware"] | (measured or {}),
        "versions": origin["versions"],
        "notes": notes,
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, receipt, indent=1)
    return path


def receipt_origin() -> dict[str, Any]:
    """Where figures come from: the commit, the machine and the versions."""
    return {
        "commit": _commit(),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "src", *_MEASURED)),
        "hardware": hardware(),
        "versions": versions(more=_RUNTIMES),
    }


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
