"""Compare speed and memory with others: botformer benchmark attention|model|headline|detection|deploy."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from botformer.terminal import plain, screen

Suite = Literal["attention", "model", "headline", "detection", "deploy"]


@dataclass(frozen=True)
class Arguments:
    suite: Annotated[Suite, tyro.conf.Positional]
    """attention: the operation. model: ResNet-50 and BoTNet-50. headline: T3 to T7. detection: Mask R-CNN. deploy:
    networks in PyTorch and exported, on a CPU."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    rounds: int = 0
    """How often each implementation is timed. 0: 5 times on a CPU, 20 times on a GPU."""
    minutes: float = 0
    """Begin no further case after this many minutes; the receipt lists the cases left out. 0: no limit."""
    only: str = ""
    """Run only the cases with this label, such as deployed or 64x64. The files are then SUITE_ONLY_cpu or _gpu."""
    out: Path = Path("results")
    """Folder for the receipt, SUITE_cpu.json or SUITE_gpu.json, and its chart, likewise in .png."""
    resume: bool = False
    """Go on with the receipt of the same name, if it is of the same commit, card, versions and rounds."""
    quick: bool = False
    """Tiny sizes, to see that everything runs. The files are named SUITE_cpu_quick or SUITE_gpu_quick."""
    notes: str = ""
    """Added to the notes of the receipt."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer benchmark", description=__doc__)
    # Here, so that --help does not wait for PyTorch.
    from botformer.benchmark.run_suite import run_suite
    from botformer.benchmark.table import print_table
    from botformer.errors import InputError

    if given.rounds < 0 or given.minutes < 0:
        raise InputError(f"--rounds and --minutes are 0 or more, got {given.rounds} and {given.minutes:g}")
    progress = screen(stderr=True)
    turns = 0
    with progress.status(plain(f"{given.suite}: measuring the machine's peaks")) as status:

        def show_turn(case: str) -> None:
            nonlocal turns
            turns += 1
            status.update(plain(f"{given.suite}: {case} (turn {turns})"))

        def show_rows(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                progress.print(", ".join(f"{value}" for value in row.values()))

        result = run_suite(
            given.suite,
            given.device,
            given.out,
            shlex.join(["botformer", "benchmark", *arguments]),
            rounds=given.rounds,
            minutes=given.minutes,
            only=given.only,
            quick=given.quick,
            notes=given.notes,
            resume=given.resume,
            on_turn=show_turn,
            on_rows=show_rows,
        )
    print_table(result.receipt, screen())
    progress.print(f"receipt {result.receipt}, chart {result.receipt.with_suffix('.png')}")
    if result.device_lost:
        progress.print(f"stopped, as the device is unusable after: {result.device_lost}")
    if result.left:
        progress.print(f"{result.left} cases are still to be done: the same command with --resume goes on")
    if result.faults:
        sys.exit("\n".join(["botformer benchmark: wrong or failed:", *result.faults]))
