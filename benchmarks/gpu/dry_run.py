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
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from benchmarks.gpu import out_folder
from benchmarks.gpu.runner import ROOT
from benchmarks.gpu.step_arguments import MORE_TO_DO
from benchmarks.gpu.steps import STEPS

ABSENT = ("tyro", "importlinter", "supervision", "pycocotools")
"""The kit must do without them, so they must not be here."""
BAD_WORDS = ("WRONG", "failed: ", "Error")
"""What no field of a receipt of the dry run may hold."""
MINUTES = {1: (1.6, 9), 2: (9,), 3: (1.2, 9)}
"""Of each call: a short one is stopped as if its minutes were used, and the next starts on a bare machine."""
AT_ONCE = 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, required=True, help="folder with wheels/")
    packs = parser.parse_args().packs.absolute()
    problems = [f"{name} is installed here" for name in ABSENT if importlib.util.find_spec(name)]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ThreadPool(AT_ONCE) as threads:
        chains = threads.map(lambda call: _chain(Path(folder) / str(call), packs, call), sorted(MINUTES))
        problems += [problem for chain in chains for problem in chain]
        if problems and (keep := os.environ.get("KEEP")):
            shutil.copytree(folder, keep, dirs_exist_ok=True)
    print("\n".join(problems) or f"the dry run is whole: {len(STEPS)} steps in {time.monotonic() - begun:.0f} s")
    return bool(problems)


def _chain(home: Path, packs: Path, call: int) -> list[str]:
    """One call, stopped early where MINUTES says so, and gone on with on a bare machine. Returns what was wrong."""
    problems, earlier = [], None
    for number, minutes in enumerate(MINUTES[call]):
        out, work = home / f"out_{number}", home / f"work_{number}"
        status = _call(out, work, packs, call, minutes, earlier)
        problems += _problems_of_folder(out)
        expected = (0,) if minutes == MINUTES[call][-1] else (0, MORE_TO_DO)  # a fast machine may do it all at once
        if status not in expected:
            problems.append(f"call {call}, part {number}: exit status {status}, expected {expected}")
        earlier = out
    return problems + _problems_of_receipts(work / "results", call)


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


def _problems_of_receipts(results: Path, call: int) -> list[str]:
    found = []
    rows = json.loads((results / "kit_cpu_quick.json").read_text(encoding="utf-8"))["figures"]
    status = {row["step"]: row["status"] for row in rows}
    found += [
        f"step {step.name}: {status.get(step.name)}"
        for step in STEPS
        if step.call == call and status.get(step.name) != "done"
    ]
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
