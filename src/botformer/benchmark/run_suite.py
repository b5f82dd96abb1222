"""A suite from its cases to a receipt and its chart."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from botformer.benchmark.chart import draw_benchmark
from botformer.benchmark.comparison import SEED, DeviceLostError, Row, run_case
from botformer.benchmark.receipt import receipt_origin, write_receipt
from botformer.benchmark.roofline import Peaks, measure_peaks
from botformer.benchmark.suite_rows import SuiteRows, earlier_rows
from botformer.environment import keep_freed_memory
from botformer.errors import InputError, unknown

logger = logging.getLogger(__name__)

TITLES = {
    "attention": "The attention operation alone",
    "model": "ResNet-50 and BoTNet-50, with our attention and third-party attention",
    "headline": "T3 to T7 and networks of similar accuracy, each at its own image size",
    "detection": "Mask R-CNN with ResNet-50 and BoTNet-50, and torchvision's",
    "deploy": "Networks deployed: in PyTorch and exported, beside torchvision's in eager mode",
}
ROUNDS = {"cpu": 5, "cuda": 20}
CASE_S = {"cpu": 0, "cuda": 45}
"""Seconds for the turns of a case; fewer rounds where they would take longer. 0: no limit."""
LEAST_S = {"cpu": 0, "cuda": 20}
"""No case begins where fewer seconds are left."""
_COLUMNS = (
    "ms: median of {rounds} rounds; ratio: to the first implementation of the case, median of the ratios within a "
    "round; peak_mib: peak memory beyond what was allocated before the call; tflops: 10^12 operations per second; "
    "of_peak: fraction of the measured peak of matrix products."
)


@dataclass(frozen=True)
class SuiteResult:
    receipt: Path
    left: int
    """Cases that are still to be done."""
    faults: list[str]
    """Results of ours that were wrong, and implementations of ours that failed, in words."""
    device_lost: str
    """What made the device unusable for this process; empty if nothing did."""


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
    resume: bool = False,
    on_turn: Callable[[str], None] = lambda case: None,
    on_rows: Callable[[list[Row]], None] = lambda rows: None,
) -> SuiteResult:
    """Measure, write the receipt and, once there are figures, its chart to the folder `out`.

    The receipt is written before and after every case, so that little is lost when the process is killed. What is
    wrong, fails or runs out of memory is a row of it. After an error that makes the device unusable for the process
    no further case begins; another process can go on.

    Args:
        suite: a key of `TITLES`.
        device: "cpu", "cuda", or "auto": CUDA where there is a device.
        command: as the receipt records it.
        rounds: see `run_case`; 0: those of `ROUNDS`.
        minutes: begin no further case after so many; 0: no limit.
        only: run only the cases with this label.
        quick: tiny sizes.
        resume: take the cases that are done from the receipt of the same name, if it is of the same commit, card,
            versions and rounds.
        on_turn: called with the case after every turn.
        on_rows: called with the rows of every case.

    Raises:
        InputError: no case has the label, or there is no such device.
    """
    deadline = monotonic() + 60 * minutes if minutes else float("inf")
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
    threads, load_before = torch.get_num_threads(), _load()
    where = "on the GPU" if on.type == "cuda" else f"on the CPU, {threads} thread{'s'[: threads != 1]}"
    label = f"_{only.replace(' ', '_')}" if only else ""
    receipt = out / f"{suite}{label}_{kind}{'_quick' if quick else ''}.json"
    same = {
        "title": f"{TITLES[suite]} ({where}, {precision})",
        **receipt_origin(),
    }  # as any receipt that it goes on with
    columns = _COLUMNS.format(rounds=rounds)
    earlier, reason = earlier_rows(receipt, same) if resume else (None, "")
    if earlier and not earlier["notes"].startswith(columns):
        earlier, reason = None, "its number of rounds is another"
    if reason:
        logger.info("%s: begun anew, not continued: %s", receipt.name, reason)
    matmul_gflops = f"{precision}_matmul_gflops"
    if earlier:
        peaks = Peaks(earlier["hardware"][matmul_gflops], earlier["hardware"]["copy_gb_per_s"])
    else:
        peaks = measure_peaks(on, dtype, rounds=1 if quick else 5)
    found = SuiteRows(chosen, earlier["figures"] if earlier else ())
    several_calls = found.left < len(chosen)

    def write() -> None:
        load = f"Freed memory stays with the process. Load average {load_before} before and {_load()} after."
        said = (
            columns,
            load if on.type == "cpu" else "",
            "Measured in several calls." if several_calls else "",
            notes,
        )
        measured: dict[str, Any] = {
            "threads": threads,
            matmul_gflops: peaks.matmul_gflops,
            "copy_gb_per_s": peaks.copy_gb_per_s,
        }
        text = " ".join(part for part in said if part)
        write_receipt(receipt, same["title"], command, found.rows, SEED, text, measured, origin=same)

    lost: DeviceLostError | None = None  # keeps what lies on the device: to free it may end the process
    try:
        for case in chosen:
            seconds_left = deadline - monotonic()
            if found.is_done(case) or seconds_left <= max(case.least_s, LEAST_S[on.type]):
                continue
            begun = found.begin(case)
            write()
            if begun is None:
                continue
            try:
                turns_s = min(CASE_S[on.type], seconds_left / 2)
                found.finish(case, run_case(begun, rounds, on, peaks, on_turn, turns_s))
            except DeviceLostError as error:
                lost = error
                found.postpone(case, error.row)
            on_rows(found.of(case))
            write()
            if lost:
                break
    finally:
        write()
        if any("ms" in row for row in found.rows):
            draw_benchmark(receipt, receipt.with_suffix(".png"))
    return SuiteResult(receipt, found.left, found.faults, str(lost or ""))


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no CUDA device; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
