"""Measurements behind two choices on the CPU: the library for matrix products, and whether to keep freed memory.

python benchmarks/cpu_choices.py    writes results/cpu_choices.json
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from botformer.attention import products
from botformer.benchmark.model_steps import our_model, training_step
from botformer.benchmark.receipt import write_receipt
from botformer.benchmark.timing import ratio, take_turns
from botformer.environment import keep_freed_memory

# (matrices, M, K, N): products of a tile, and of whole small maps, at a head width of 128
SHAPES = (
    (1, 256, 128, 4096),
    (1, 256, 4096, 128),
    (4, 256, 128, 256),
    (16, 256, 128, 256),
    (16, 196, 128, 196),
    (16, 49, 128, 49),
)
# (network, image px, batch)
STEPS = (("botnet50", 1024, 1), ("botnet_nano", 48, 64))
CPU = torch.device("cpu")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--step", nargs=4, help=argparse.SUPPRESS)  # one measurement in a process of its own
    arguments = given.parse_args()
    if arguments.step:
        name, image_px, batch, kept = arguments.step
        print(_step_ms(name, int(image_px), int(batch), kept == "kept"))
        return
    rows = [_products_row(*shape) for shape in SHAPES] + [_memory_row(*step) for step in STEPS]
    write_receipt(
        Path(__file__).parents[1] / "results/cpu_choices.json",
        "Choices on the CPU: the library for matrix products, and whether to keep freed memory",
        "python benchmarks/cpu_choices.py",
        rows,
        notes="float32. Products: medians of 15 turns; the first two are those of tiles, the others those of whole "
        "small maps. Training steps: medians of two processes each.",
        measured={"threads": torch.get_num_threads()},
    )


def _products_row(matrices: int, M: int, K: int, N: int) -> dict[str, Any]:
    a, b = torch.randn(matrices, M, K), torch.randn(matrices, N, K).mT
    products.CALL_PER_MATRIX_FROM = 0
    calls = {"torch.bmm": lambda _: torch.bmm(a, b), "oneDNN": lambda _: products.product(a, b)}
    times = take_turns(calls, rounds=15, device=CPU)
    return _row(f"{matrices} x ({M}x{K} @ {K}x{N})", times)


def _memory_row(name: str, image_px: int, batch: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"returned": [], "kept": []}
    for _ in range(2):
        for kept, measured in times.items():
            command = [sys.executable, __file__, "--step", name, str(image_px), str(batch), kept]
            measured.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return _row(f"training step, {name}, {image_px} px, batch {batch}", times)


def _step_ms(name: str, image_px: int, batch: int, kept: bool) -> float:
    if kept:
        keep_freed_memory()
    call = training_step(lambda: our_model(name, image_px), image_px, batch, CPU)
    return statistics.median(take_turns({"": call}, 3, CPU)[""])


def _row(what: str, times: dict[str, list[float]]) -> dict[str, Any]:
    (first, one), (second, other) = times.items()
    return {
        "what": what,
        "first": first,
        "first_ms": round(statistics.median(one), 3),
        "second": second,
        "second_ms": round(statistics.median(other), 3),
        "first / second": round(ratio(one, other), 3),
    }


if __name__ == "__main__":
    main()
