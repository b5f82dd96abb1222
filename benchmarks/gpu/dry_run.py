"""The whole kit on a CPU with tiny sizes, where machine.txt is installed: every call, receipt and resumption.

python -m benchmarks.gpu.dry_run --packs DIR
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import out_folder
from benchmarks.gpu.runner import MORE_TO_DO, ROOT
from benchmarks.gpu.steps import STEPS

ABSENT = ("tyro", "importlinter", "supervision", "pycocotools")
"""The kit must do without them, so they must not be here."""
BAD_WORDS = ("WRONG", "failed: ", "Error")
"""What no field of a receipt of the dry run may hold."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, required=True, help="folder with wheels/")
    packs = parser.parse_args().packs.absolute()
    problems = [f"{name} is installed here" for name in ABSENT if importlib.util.find_spec(name)]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        # The first call is stopped early, as if its minutes were used; each later one starts on a bare machine from
        # what the last one brought home.
        calls = [("first", 1, 0.75), ("second", 1, 9), ("third", 2, 9), ("fourth", 3, 9)]
        earlier: Path | None = None
        for name, call, minutes in calls:
            out = home / f"out_{name}"
            status = _call(out, home / f"work_{name}", packs, call, minutes, earlier)
            print(f"-- the {name} call ended with {status} after {time.monotonic() - begun:.0f} s in all", flush=True)
            problems += _problems_of_folder(out)
            if (status != 0) and not (name == "first" and status == MORE_TO_DO):
                problems.append(f"the {name} call ended with {status}")
            earlier = out
        results = home / f"work_{calls[-1][0]}" / "results"
        problems += _problems_of_receipts(results)
        if problems and (keep := os.environ.get("KEEP")):
            shutil.copytree(results, keep, dirs_exist_ok=True)
    print("\n".join(problems) or f"the dry run is whole: {len(STEPS)} steps in {time.monotonic() - begun:.0f} s")
    return bool(problems)


def _call(out: Path, work: Path, packs: Path, call: int, minutes: float, earlier: Path | None) -> int:
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--call", f"{call}", "--minutes", f"{minutes}"]
    command += ["--out", str(out), "--work", str(work), "--packs", str(packs)]
    command += ["--earlier", str(earlier)] if earlier else []
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _problems_of_folder(out: Path) -> list[str]:
    files = [path for path in out.rglob("*") if path.is_file()]
    found = [f"{out.name} has {len(files)} files"] if len(files) > out_folder.MOST_FILES else []
    sizes = {path.name: path.stat().st_size for path in files}
    found += [f"{out.name}/{name} has {size} bytes" for name, size in sizes.items() if size > out_folder.BYTES_PER_FILE]
    return found + [f"{out.name} is too large"] * (sum(sizes.values()) > out_folder.BYTES_IN_ALL)


def _problems_of_receipts(results: Path) -> list[str]:
    found = []
    rows = json.loads((results / "kit_cpu_quick.json").read_text(encoding="utf-8"))["figures"]
    status = {row["step"]: row["status"] for row in rows}
    found += [f"step {step.name}: {status.get(step.name)}" for step in STEPS if status.get(step.name) != "done"]
    for path in sorted(results.glob("*.json")):
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        figures = content.get("figures", [{"empty": False}]) if isinstance(content, dict) else content
        if not figures:
            found.append(f"{path.name} has no rows")
        for row in figures if isinstance(figures, list) else [figures]:
            bad = [str(value) for value in row.values() if any(word in str(value) for word in BAD_WORDS)]
            found += [f"{path.name}: {text[:200]}" for text in bad]
    return found


if __name__ == "__main__":
    sys.exit(main())
