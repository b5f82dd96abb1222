"""Measure a trained network on images whose labels or objects are known: botformer evaluate RUN --data DIR."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from botformer.errors import InputError

Device = Literal["auto", "cuda", "mps", "cpu"]


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a training run (its best checkpoint), the folder of one checkpoint, a .safetensors file of
    botformer.save, or the name of a network that comes with the package."""
    data: str
    """As for `botformer train`: images in class folders for a classifier, COCO or YOLO annotations for a detector."""
    split: str = "validation"
    """Which part of the data: validation, train, or any other in it such as test."""
    out: Path | None = None
    """Where the results go; evaluation/ in the run by default, else runs/evaluation/NAME."""
    by: str | None = None
    """Detectors: measure groups of images too, told apart by this key of the image records, such as stain."""
    batch_size: int | None = None
    """Images at a time in each process; 64 for classifiers, 4 for detectors by default."""
    workers: int = -1
    """Processes that read images; -1: one a core, at most 8; 0: none."""
    device: Device = "auto"

    @property
    def folder(self) -> Path:
        """Where the results go."""
        if self.out is not None:
            return self.out
        run = self.checkpoint
        return run / "evaluation" if run.is_dir() else Path("runs/evaluation") / run.stem


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer evaluate", description=__doc__)
    from rich.console import Console

    from botformer.evaluate.classifier import print_classification
    from botformer.evaluate.detector import print_detection

    results = evaluate_checkpoint(given)
    if int(os.environ.get("RANK", "0")) > 0:  # under torchrun the first process speaks for all
        return
    console = Console(soft_wrap=True)
    print_results = print_detection if results["task"] == "detection" else print_classification
    print_results(results, given.folder, console)


def evaluate_checkpoint(given: Arguments) -> dict[str, Any]:
    """Evaluate, write the results to `given.folder`, and return what results.json (of a classifier) or metrics.json (of
    a detector) holds."""
    from botformer.create import load
    from botformer.evaluate.classifier import evaluate_classifier
    from botformer.evaluate.detector import evaluate_detector
    from botformer.recipes.schema import Run
    from botformer.training.distributed import open_accelerator

    accelerator = open_accelerator(Run(device=given.device, precision="float32"))
    if not accelerator.is_main_process:
        logging.disable(logging.INFO)
    loaded = load(given.checkpoint)
    _demand_data_of(loaded.model_config["task"], given)
    evaluate = evaluate_detector if loaded.model_config["task"] == "detection" else evaluate_classifier
    return evaluate(given, loaded, accelerator)


def _demand_data_of(task: str, given: Arguments) -> None:
    """The other task's data would give an error all the same, but one that leads astray."""
    from botformer.data.detection.layouts import LAYOUTS, is_annotated

    annotated = is_annotated(given.data)
    if task == "classification" and annotated:
        raise InputError(
            f"{given.checkpoint} is a classifier, but {given.data} holds objects with boxes (COCO or YOLO); give it "
            "images in class folders, DIR/validation/CLASS/*.jpg, or evaluate a detector"
        )
    if task == "detection" and Path(given.data).expanduser().is_dir() and not annotated:
        raise InputError(
            f"{given.checkpoint} is a detector, but {given.data} has no annotations that say where objects are (class "
            f"folders are for classifiers); {LAYOUTS}"
        )
    if task == "classification" and given.by is not None:
        raise InputError("--by is for detectors: images in class folders have no image records; leave it out")
