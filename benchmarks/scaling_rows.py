"""The rows of results/scaling_cpu.json, and the recipes that docs/scaling.md is about."""

import statistics
from typing import Any

from scaling import Link, gradient_bytes, run_s, step_on_cores

from botformer.recipes import EXPERIMENTS
from botformer.recipes.experiment import NOT_IN_THE_PAPER, Experiment
from botformer.recipes.schema import DetectionImages, Images

Row = dict[str, Any]
"""what: one of the names below; recipe, processes: whose; measured: the figure."""

READING, STEP = "part: reading a batch, ms", "part: step, ms"
LATENCY, BANDWIDTH = "part: latency, us", "part: bandwidth, MB/s"
CHECKPOINT, CHECKPOINT_MB = "part: checkpoint, s", "checkpoint, MB"
PARAMETERS, RUN, LOADER = "parameters", "run, s", "loader, images/s"

PROCESSES = (1, 2, 4)
NETWORKS = (("cifar10_mini", 32), ("cifar10_botnet50", 4))
"""(recipe, images per process and step): one that mostly reads and computes, one with many gradients."""
STEPS = 8
"""Of a run."""
MESSAGES = 3
"""Small ones of a step: how many images each process has, BatchNorm's statistics, which the first one sends to the
others, and the losses."""


def paper_recipes() -> list[Experiment]:
    return [row for row in EXPERIMENTS.values() if row.paper != NOT_IN_THE_PAPER]


def loader_label(images: Images | DetectionImages) -> str:
    """What decides how long an image takes to prepare; recipes with one label share a row of the receipt."""
    if isinstance(images, DetectionImages):
        low, high = images.scale_jitter
        return f"COCO, {images.size} px, scale {low:g} to {high:g}"
    augmentation = f", RandAugment {images.rand_augment_layers}" if images.rand_augment_layers else ""
    return f"ImageNet, {images.size} px{augmentation}"


def median_rows(rows: list[Row]) -> list[Row]:
    """Rows with the same labels become one; its figure is the median of theirs."""
    figures: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        figures.setdefault((row["what"], row["recipe"], row["processes"]), []).append(row["measured"])
    return [
        {"what": what, "recipe": recipe, "processes": processes, "measured": round(statistics.median(values), 4)}
        for (what, recipe, processes), values in figures.items()
    ]


def with_predictions(rows: list[Row], cores: int) -> list[Row]:
    """The rows of runs with `predicted` and `error`, from those of the parts."""
    done = []
    for row in rows:
        if row["what"] == RUN:
            seconds = predicted_s(rows, row["recipe"], row["processes"], cores)
            row = row | {"predicted": round(seconds, 3), "error": round(seconds / row["measured"] - 1, 3)}
        done.append(row)
    return done


def predicted_s(rows: list[Row], recipe: str, processes: int, cores: int) -> float:
    """Seconds of a run of STEPS steps and a checkpoint, from the parts that were timed beside it."""
    parts = {row["what"]: row["measured"] for row in rows if is_of(row, recipe, processes)}
    link = Link(float("inf"))
    if processes > 1:
        link = Link(1e6 * parts[BANDWIDTH], 1e-6 * parts[LATENCY])
    step = step_on_cores(
        compute_s=1e-3 * parts[STEP],
        loader_s=1e-3 * parts[READING],
        gradients=gradient_bytes(int(parts[PARAMETERS])),
        processes=processes,
        cores=cores,
        link=link,
        messages=MESSAGES,
    )
    return run_s(step, STEPS, 1, parts[CHECKPOINT])


def is_of(row: Row, recipe: str, processes: int) -> bool:
    return row.get("recipe") == recipe and row.get("processes") == processes
