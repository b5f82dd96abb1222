"""Evaluate whatever a checkpoint holds."""

import logging
import os
from pathlib import Path
from typing import Any

from botformer.create.from_checkpoint import load_for_rgb
from botformer.data.detection.layouts import LAYOUTS, is_annotated
from botformer.errors import InputError
from botformer.evaluate.classifier import evaluate_classifier
from botformer.evaluate.detector import evaluate_detector
from botformer.evaluate.options import EvaluateOptions
from botformer.read_file import at_home
from botformer.recipes.schema import Device, Run
from botformer.training.distributed import open_accelerator

_OF_PREDICTIONS = ("predictions.jsonl", "images.json")
"""What `botformer predict` writes, and an evaluation does not."""


def evaluate_checkpoint(options: EvaluateOptions, device: Device = "auto") -> dict[str, Any] | None:
    """Evaluate, write metrics.json, predictions.json and drawings to `options.out`, and return what metrics.json holds.

    Under torchrun each process evaluates a part of the images; the first one writes, the others return None.

    Raises:
        InputError: no such checkpoint or data, or data that do not fit the network.
    """
    accelerator = open_accelerator(Run(device=device, precision="float32"))
    if not accelerator.is_main_process:
        logging.disable(logging.INFO)
    loaded = load_for_rgb(options.checkpoint)
    if accelerator.is_main_process:  # a mistake is said before hours of measuring, not after
        _demand_writable(options.out)
        _demand_no_predictions(options.out)
    _check_data(loaded.model_config["task"], options)
    evaluate = evaluate_detector if loaded.model_config["task"] == "detection" else evaluate_classifier
    return evaluate(options, loaded, accelerator)


def _demand_writable(out: Path) -> None:
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file; the results need a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"nothing can be written into {there}; name another --out")


def _demand_no_predictions(out: Path) -> None:
    """Both write a predictions.json, and neither should lose the other's."""
    if any((out / name).is_file() for name in _OF_PREDICTIONS):
        raise InputError(f"{out} holds what predict wrote, which would be lost; name another --out")


def _check_data(task: str, options: EvaluateOptions) -> None:
    """Data of the other task would give an error all the same, but a misleading one."""
    annotated = is_annotated(options.data)
    if task == "classification" and annotated:
        raise InputError(
            f"{options.checkpoint} is a classifier, but {options.data} holds objects with boxes (COCO or YOLO); give "
            "it images in class folders, DIR/validation/CLASS/*.jpg, or evaluate a detector"
        )
    if task == "detection" and at_home(options.data).is_dir() and not annotated:
        raise InputError(
            f"{options.checkpoint} is a detector, but {options.data} has no annotations of objects (class folders are "
            f"for classifiers); {LAYOUTS}"
        )
    if task == "classification" and options.by is not None:
        raise InputError("--by is for detectors: images in class folders have no image records; leave it out")
    if task == "classification" and options.tile is not None:
        raise InputError("--tile is for detectors; leave it out")
    if task == "classification" and options.max_bad_records is not None:
        raise InputError("--max-bad-records is for detectors: images in class folders have no records; leave it out")
