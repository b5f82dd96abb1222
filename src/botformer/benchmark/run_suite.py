"""A suite from its cases to a receipt and its chart."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from botformer.benchmark.chart import draw_benchmark
from botformer.benchmark.comparison import SEED, Row, run_cases
from botformer.benchmark.receipt import write_receipt
from botformer.benchmark.roofline import measure_peaks
from botformer.environment import keep_freed_memory
from botformer.errors import InputError, unknown

TITLES = {
    "attention": "The attention operation alone",
    "model": "ResNet-50 and BoTNet-50, with our attention and third-party attention",
    "headline": "Training steps of T3 to T7 and of networks of similar accuracy, each at its own image size",
    "detection": "Training steps of Mask R-CNN",
}
ROUNDS = {"cpu": 5, "cuda": 20}
_COLUMNS = (
    "ms: median of {rounds} rounds; ratio: to the first implementation of the case, median of the ratios within a "
    "round; peak_mib: peak memory beyond what was allocated before the call; of_peak: fraction of the measured peak of "
    "matrix products."
)


def run_suite(
    suite: str,
    device: str,
    out: Path,
    command: str,
    *,
    rounds: int = 0,
    minutes: float = 0,
    only: str = "",
    quick: bool = False,
    notes: str = "",
    on_turn: Callable[[str], None] = lambda case: None,
    on_rows: Callable[[list[Row]], None] = lambda rows: None,
) -> Path:
    """Measure, write the receipt and its chart to the folder `out`, and return the receipt's path.

    Args:
        suite: a key of `TITLES`.
        device: "cpu", "cuda", or "auto": CUDA where there is a device.
        command: as the receipt records it.
        rounds, minutes: see `run_cases`; 0 rounds: those of `ROUNDS`.
        only: run only the cases with this label.
        quick: tiny sizes.
        on_turn: called with the case after every turn.
        on_rows: called with the rows of every case.

    Raises:
        InputError: no case has the label, or there is no such device.
    """
    on = _device(device)
    cases = list(import_module(f"botformer.benchmark.{suite}_suite").cases(on, quick))
    chosen = [case for case in cases if not only or only in map(str, case.labels.values())]
    if not chosen:
        raise unknown("label", only, {str(value): None for case in cases for value in case.labels.values()})
    kind, precision, dtype = (
        ("gpu", "bfloat16", torch.bfloat16) if on.type == "cuda" else ("cpu", "float32", torch.float32)
    )
    if on.type == "cpu":
        keep_freed_memory()
    rounds = rounds or (1 if quick else ROUNDS[on.type])
    load_before = _load()
    peaks = measure_peaks(on, dtype)
    rows = []
    for case_rows in run_cases(chosen, rounds, on, peaks, minutes, on_turn):
        rows += case_rows
        on_rows(case_rows)
    threads = torch.get_num_threads()
    where, load = "on the GPU", ""
    if on.type == "cpu":
        where = f"on the CPU, {threads} thread{'s'[: threads != 1]}"
        load = f"Freed memory stays with the process. Load average {load_before} before and {_load()} after."
    label = f"_{only.replace(' ', '_')}" if only else ""
    receipt = write_receipt(
        out / f"{suite}{label}_{kind}{'_quick' if quick else ''}.json",
        f"{TITLES[suite]} ({where}, {precision})",
        command,
        rows,
        SEED,
        " ".join(part for part in (_COLUMNS.format(rounds=rounds), load, notes) if part),
        {
            "threads": threads,
            f"{precision}_matmul_gflops": peaks.matmul_gflops,
            "copy_gb_per_s": peaks.copy_gb_per_s,
        },
    )
    draw_benchmark(receipt, receipt.with_suffix(".png"))
    return receipt


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no CUDA device; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
