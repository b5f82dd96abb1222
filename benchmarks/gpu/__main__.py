"""Measure everything that needs a GPU, in calls of a few minutes: python -m benchmarks.gpu --out DIR

The first call checks and tunes the fused attention and compares it with every other; the second measures networks; the
third and those after it train. Say the same again to go on where the last call stopped. docs/gpu.md says more.
"""

import argparse
import os
import signal
import sys
import time
import zipfile
from pathlib import Path

from benchmarks.gpu import out_folder, parts, tables
from benchmarks.gpu.runner import ROOT, Folders, Runner
from benchmarks.gpu.step_arguments import MORE_TO_DO
from benchmarks.gpu.steps import STEPS

PACKING_SECONDS = 15
RUNS = "runs"
"""Where trainings keep their runs, in the folder of work."""


def main() -> int:
    """0: nothing is left to do. 75: the same command goes on. 1: a step failed; the receipt says how."""
    begun = time.monotonic()
    given = _arguments()
    folders = Folders(given.work / "results", given.work / "steps", given.packs)
    for folder in (folders.results, folders.work):
        folder.mkdir(parents=True, exist_ok=True)
    if given.earlier:
        _take_up(given.earlier, folders)
    if not given.quick:
        tables.install(folders.results)
    _find_wheels(given.packs / "wheels", given.work / "site")
    if (commit := given.packs / "commit").is_file():
        os.environ.setdefault("BOTFORMER_COMMIT", commit.read_text(encoding="utf-8").strip())

    steps = [step for step in STEPS if given.call in (0, step.call)]
    runner = Runner(steps, folders, given.quick, after_step=lambda: out_folder.pack(folders.results, given.out))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: runner.stop())
    done = runner.run(60 * given.minutes - PACKING_SECONDS - (time.monotonic() - begun))
    _bring_home(folders, given.out)
    print(f"{given.out}: {', '.join(sorted(path.name for path in given.out.iterdir()))}")
    if runner.failed:
        print("failed: " + ", ".join(sorted(runner.failed)) + f"; {runner.receipt.name} says how")
        return 1
    print("all is done" if done else "more to do: the same command goes on")
    return 0 if done else MORE_TO_DO


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="what a call brings home: at most 8 files of 16 MiB")
    parser.add_argument("--call", type=int, default=0, choices=range(4), help="only this call's steps; 0: all in turn")
    parser.add_argument("--minutes", type=float, default=9, help="the call ends by itself within these (default 9)")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/gpu", help="receipts and checkpoints between calls")
    parser.add_argument("--packs", type=Path, default=ROOT / "build/gpu", help="from make gpu-wheels and make gpu-data")
    parser.add_argument("--earlier", type=Path, help="the --out of an earlier call on another machine, to go on from")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see on a CPU that everything runs")
    given = parser.parse_args()
    for name in ("out", "work", "packs"):
        setattr(given, name, getattr(given, name).absolute())
    return given


def _take_up(earlier: Path, folders: Folders) -> None:
    """What an earlier call brought home, from another machine."""
    files, runs = out_folder.unpack(earlier, folders.results), parts.join(earlier, folders.work / RUNS)
    print(f"from {earlier}: {len(files)} files, checkpoints of {', '.join(runs) or 'no run'}")


def _bring_home(folders: Folders, out: Path) -> None:
    """Receipts first, then as many checkpoints as there is room for."""
    out_folder.pack(folders.results, out)
    runs = [path for path in sorted((folders.work / RUNS).glob("*")) if path.is_dir()]
    room = out_folder.BYTES_IN_ALL - (out / out_folder.ZIP).stat().st_size
    _, left_out = parts.split(runs, out, out_folder.MOST_FILES - 1, out_folder.BYTES_PER_FILE, room)
    if left_out:
        print(f"too large to bring home, so these stay in {folders.work / RUNS}: {', '.join(left_out)}")


def _find_wheels(wheels: Path, site: Path) -> None:
    """Unpack the wheels that travelled, so that every step can import them. Nothing is installed."""
    found = sorted(wheels.glob("*.whl"))
    for wheel in found:
        if not (site / wheel.name).exists():
            zipfile.ZipFile(wheel).extractall(site)
            (site / wheel.name).touch()
    if found:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(site)]))


if __name__ == "__main__":
    sys.exit(main())
