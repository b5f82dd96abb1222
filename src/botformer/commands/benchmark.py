"""Speed and memory side by side with others: botformer benchmark attention|model|headline|detection."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    import torch

Suite = Literal["attention", "model", "headline", "detection"]
TITLES: dict[Suite, str] = {
    "attention": "The attention alone",
    "model": "ResNet-50 and BoTNet-50, with our attention and others'",
    "headline": "Training steps of T3 to T7 and of networks as accurate, each at its own image size",
    "detection": "Training steps of Mask R-CNN",
}
ROUNDS = {"cpu": 5, "cuda": 20}


@dataclass(frozen=True)
class Arguments:
    suite: Annotated[Suite, tyro.conf.Positional]
    """attention: the operation. model: whole networks. headline: T3 to T7. detection: Mask R-CNN."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    rounds: int = 0
    """Turns of each implementation; 0: 5 on a CPU, 20 on a GPU."""
    minutes: float = 0
    """Begin no other case after this many minutes; what is left out is said. 0: no limit."""
    only: str = ""
    """Hold only the cases with this label, such as deployed or 64x64; the files are then called SUITE_ONLY_DEVICE."""
    out: Path = Path("results")
    """Where SUITE_DEVICE.json, the receipt, and SUITE_DEVICE.png, drawn from it, go."""
    quick: bool = False
    """Tiny sizes, to see that all runs; the files are called SUITE_DEVICE_quick."""
    notes: str = ""
    """What a reader of the receipt should know."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer benchmark", description=__doc__)
    from botformer.errors import InputError

    if given.rounds < 0 or given.minutes < 0:
        raise InputError(f"--rounds and --minutes are 0 or more, got {given.rounds} and {given.minutes:g}")
    from rich.console import Console

    command = shlex.join(["botformer", "benchmark", *arguments])
    receipt = benchmark(given, command)
    print_table(receipt, Console())
    Console(stderr=True).print(f"receipt {receipt}, image {receipt.with_suffix('.png')}")


def benchmark(given: Arguments, command: str) -> Path:
    """Measure, write receipt and image, and return the receipt's path."""
    from importlib import import_module

    import torch
    from rich.console import Console

    from botformer.benchmark.chart import draw_benchmark
    from botformer.benchmark.comparison import SEED, run_cases
    from botformer.benchmark.receipt import write_receipt
    from botformer.benchmark.roofline import measure_peaks
    from botformer.environment import keep_freed_memory
    from botformer.errors import unknown

    device = _device(given.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rounds = given.rounds or (1 if given.quick else ROUNDS[device.type])
    suite = import_module(f"botformer.benchmark.{given.suite}_suite")
    cases = [
        case
        for case in suite.cases(device, given.quick)
        if not given.only or given.only in map(str, case.labels.values())
    ]
    if not cases:
        known = {str(value): None for case in suite.cases(device, given.quick) for value in case.labels.values()}
        raise unknown("label", given.only, known)
    if device.type == "cpu":
        keep_freed_memory()
    load_before = _load()
    console = Console(stderr=True)
    with console.status("measuring what the machine can do") as status:
        peaks = measure_peaks(device, dtype)
        turns = 0

        def on_turn(case: str) -> None:
            nonlocal turns
            turns += 1
            status.update(f"{given.suite}: {case} (turn {turns})")

        rows = []
        for case_rows in run_cases(cases, rounds, device, peaks, given.minutes, on_turn):
            rows += case_rows
            for row in case_rows:
                console.print(", ".join(f"{value}" for value in row.values()), highlight=False)
    kind, precision = ("gpu", "bfloat16") if device.type == "cuda" else ("cpu", "float32")
    only = f"_{given.only.replace(' ', '_')}" if given.only else ""
    name = f"{given.suite}{only}_{kind}{'_quick' if given.quick else ''}"
    threads = torch.get_num_threads()
    where = "on the GPU" if device.type == "cuda" else f"on the CPU, {threads} thread{'s'[: threads != 1]}"
    load = (
        f"Freed memory is kept in the process. Load average {load_before} before and {_load()} after."
        if device.type == "cpu"
        else ""
    )
    write_receipt(
        given.out / f"{name}.json",
        f"{TITLES[given.suite]} ({where}, {precision})",
        command,
        rows,
        SEED,
        " ".join(part for part in (_EXPLANATION.format(rounds=rounds), load, given.notes) if part),
        {
            "threads": threads,
            f"{precision}_matmul_gflops": peaks.matmul_gflops,
            "copy_gb_per_s": peaks.copy_gb_per_s,
        },
    )
    receipt = given.out / f"{name}.json"
    draw_benchmark(receipt, receipt.with_suffix(".png"))
    return receipt


_EXPLANATION = (
    "ms: median of {rounds} rounds; ratio: to the first implementation of the case, median of the ratios within a round; "
    "peak_mib: memory at the peak beyond what was held before the call; of_peak: share of the measured matrix product."
)


def print_table(receipt: Path, console: Any) -> None:
    """The figures of a receipt, a rule between cases."""
    import json

    from rich import box
    from rich.table import Table

    figures = json.loads(receipt.read_text(encoding="utf-8"))["figures"]
    columns = [key for key in dict.fromkeys(key for row in figures for key in row) if key != "left_out"]
    labels = columns[: columns.index("implementation")]
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        is_figure = column not in (*labels, "implementation")
        table.add_column(column.replace("_", " "), justify="right" if is_figure else "left", no_wrap=is_figure)
    timed = [row for row in figures if "left_out" not in row]
    for row, following in zip(timed, [*timed[1:], None], strict=True):
        ends = following is not None and any(row[label] != following[label] for label in labels)
        table.add_row(*("" if row.get(column) is None else f"{row[column]}" for column in columns), end_section=ends)
    console.print(table)
    for reason in dict.fromkeys(f"{row['implementation']}: {row['left_out']}" for row in figures if "left_out" in row):
        where = [row for row in figures if f"{row['implementation']}: {row.get('left_out')}" == reason]
        console.print(f"left out: {reason} ({len(where)} case{'s'[: len(where) != 1]})")


def _device(name: str) -> "torch.device":
    import torch

    from botformer.errors import InputError

    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no CUDA device here; say --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
