"""Measure a trained network on annotated images: botformer evaluate RUN --data DIR."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from botformer.commands.results_folder import results_folder
from botformer.commands.screen import new_table, print_table, progress_bar
from botformer.recipes.schema import Device
from botformer.terminal import screen

_IN_TABLE = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
_LOWEST = 5
"""Classes that are named on the screen."""


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a training run (its best checkpoint), the folder of one checkpoint, a .safetensors file of
    botformer.save, hf://OWNER/NAME on the Hugging Face hub, or the name of a network that comes with the package."""
    data: str
    """As for `botformer train`: images in class folders for a classifier, annotated images (COCO, YOLO, ...) for
    a detector."""
    split: str = "validation"
    """Split of the data: validation, train, or any other that is there, such as test."""
    out: Path | None = None
    """Folder for the results; by default evaluation/ in the run, with /step-... for one checkpoint, or
    runs/evaluation/NAME."""
    by: str | None = None
    """Detectors: also measure groups of images, by this key of the image records, such as stain."""
    max_bad_records: int | None = None
    """Detectors: stop when more annotations than this make no sense; by default as in training, where it is
    images.max_bad_records."""
    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation. flip: predict on each image and on its mirror image, and average; takes twice as long."""
    tile: int | None = None
    """Detectors: cut larger images into overlapping tiles of so many pixels a side; 0: none. By default as the network
    was trained for (images.tile)."""
    batch_size: int | None = None
    """Images per batch in each process; by default 64 for classifiers, 4 for detectors."""
    workers: int = -1
    """Processes that read images; -1: one per core, at most 8 per process; 0: none."""
    device: Device = "auto"

    @property
    def folder(self) -> Path:
        """Of the results."""
        return self.out or results_folder(self.checkpoint, "evaluation")


def main(arguments: list[str]) -> None:
    evaluate(tyro.cli(Arguments, args=arguments, prog="botformer evaluate", description=__doc__))


def evaluate(given: Arguments) -> None:
    # Heavy, and --help should not wait for it.
    from botformer.evaluate.evaluate_checkpoint import evaluate_checkpoint
    from botformer.evaluate.options import EvaluateOptions

    quiet = int(os.environ.get("RANK", "0")) > 0  # under torchrun only the first process writes to the screen
    with progress_bar("evaluating", quiet=quiet) as bar:
        options = EvaluateOptions(
            given.checkpoint,
            given.data,
            given.split,
            given.folder,
            by=given.by,
            max_bad_records=given.max_bad_records,
            batch_size=given.batch_size,
            workers=given.workers,
            tile=given.tile,
            flip=given.tta == "flip",
            on_progress=bar.show,
        )
        metrics = evaluate_checkpoint(options, given.device)
    if metrics is not None:
        print_metrics = _print_detector if metrics["task"] == "detection" else _print_classifier
        print_metrics(metrics, given.folder, screen())


def _print_classifier(metrics: dict[str, Any], out: Path, console: Console) -> None:
    console.print(
        f"{metrics['split']} of {metrics['data']}: "
        + ", ".join(
            f"{name} {metrics[name]:.4f}" for name in ("top1", "balanced_accuracy", "top5", "loss") if name in metrics
        )
        + f" on {metrics['images']:,} images"
    )
    lowest = sorted(metrics["per_class"].items(), key=lambda item: item[1])[:_LOWEST]
    console.print("lowest accuracy: " + ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in lowest))
    _print_files(metrics, ("metrics.json", "predictions.json", "confusion.png"), out, console)


def _print_detector(metrics: dict[str, Any], out: Path, console: Console) -> None:
    """Numbers that do not exist, COCO's -1, are "-"."""
    kinds = [kind for kind in ("box", "mask", "keypoints") if kind in metrics]
    console.print(
        f"{metrics['split']} of {metrics['data']}: {metrics['images']:,} images with {metrics['objects']:,} "
        f"objects, {metrics['detections']:,} detections"
    )
    _print_not_measured(metrics["not_measured"], console)
    table = new_table("", *(name.replace("100", str(metrics["max_detections"])) for name in _IN_TABLE))
    for kind in kinds:
        table.add_row(kind, *(_number(_in_table(metrics[kind], name)) for name in _IN_TABLE))
    print_table(console, table)
    headline = metrics[kinds[-1]]
    known = [row for row in headline["per_class"] if row["AP"] >= 0]
    if len(known) > 1:
        lowest = sorted(known, key=lambda row: row["AP"])[:_LOWEST]
        console.print(f"lowest {kinds[-1]} AP: " + ", ".join(f"{row['name']} {row['AP']:.3f}" for row in lowest))
    console.print("\nAt the score threshold with the best F1 at IoU 0.5 (chosen on these images, which flatters):")
    table = new_table("", "threshold", "F1", "precision", "recall")
    for kind in kinds:
        best = metrics[kind]["best_f1"]
        table.add_row(kind, *(_number(best[name]) for name in ("threshold", "f1", "precision", "recall")))
    print_table(console, table)
    console.print("TP / (TP + FP + FN) at that threshold:")
    table = new_table("", *(f"IoU {iou}" for iou in headline["community_ap"]))
    for kind in kinds:
        table.add_row(kind, *map(_number, metrics[kind]["community_ap"].values()))
    print_table(console, table)
    for key, groups in metrics.get("by", {}).items():
        _print_groups(key, groups, kinds, console)
    _print_files(
        metrics, ("metrics.json", "predictions.json", "precision_recall.png", "best_and_worst.png"), out, console
    )


def _print_not_measured(counts: dict[str, int], console: Console) -> None:
    if counts["objects"]:
        console.print(
            f"{counts['objects']:,} of the {counts['of_objects']:,} objects of the data are not in these numbers: "
            f"{counts['annotations_left_out']:,} could not be used, {counts['objects_in_unreadable_images']:,} lie in "
            "images that could not be read"
        )
    for kind in ("mask", "keypoints"):
        if count := counts.get(f"objects_without_{kind}", 0):
            console.print(f"{count:,} objects have no {kind}: in the {kind} numbers they count neither way")


def _in_table(numbers: dict[str, Any], name: str) -> float:
    """-1 where COCO has no such number for this kind: key points have no small objects, and AR in place of AR100."""
    return numbers.get(name, numbers.get("AR", -1) if name == "AR100" else -1)


def _print_groups(key: str, groups: dict[str, Any], kinds: Sequence[str], console: Console) -> None:
    columns = [(kind, name) for kind in kinds for name in ("AP", "AP50")]
    table = new_table(key, "images", "objects", *(f"{kind} {name}" for kind, name in columns))
    for value, group in groups.items():
        numbers = (_number(group[kind][name]) for kind, name in columns)
        table.add_row(value, f"{group['images']:,}", f"{group['objects']:,}", *numbers)
    print_table(console, table)


def _print_files(metrics: dict[str, Any], files: Sequence[str], out: Path, console: Console) -> None:
    for what, skipped in metrics["skipped"].items():
        if skipped:
            console.print(f"{len(skipped)} {what} were left out, wholly or in part; metrics.json lists them")
    console.print(f"{', '.join(files)} are in {out}")


def _number(value: float) -> str:
    return "-" if value == -1 else f"{value:.3f}"
