"""Measure a classifier: top-1 and top-5 accuracy, loss, accuracy per class, the confusion matrix."""

import json
from typing import Any

import numpy as np

from botformer.atomic_write import write_json, write_text
from botformer.backbone.resnet import Classifier
from botformer.classification.metrics import Accuracy
from botformer.classification.task import ClassificationTask
from botformer.create import Loaded
from botformer.data.classification.batches import evaluation_batches
from botformer.data.classification.dataset import ClassificationDataset, open_classification_dataset
from botformer.errors import InputError
from botformer.evaluate.measure import measure
from botformer.evaluate.options import EvaluateOptions
from botformer.plots.confusion_matrix import draw_confusion
from botformer.recipes.schema import Images
from botformer.text import and_more
from botformer.training.distributed import Accelerator

_BATCH_SIZE = 64
_LISTED = 4
"""Classes that a message names."""


def evaluate_classifier(options: EvaluateOptions, loaded: Loaded, accelerator: Accelerator) -> dict[str, Any] | None:
    """Evaluate, write metrics.json, predictions.json and confusion.png to `options.out`, and return what metrics.json
    holds. In processes other than the first: None.

    Raises:
        InputError: the classes of the data are not those of the checkpoint.
    """
    model, model_config = loaded
    assert isinstance(model, Classifier)
    dataset = open_classification_dataset(options.data, options.split)
    names = model_config["class_names"]
    _check_classes(names, dataset, options)
    batch_size = _BATCH_SIZE if options.batch_size is None else options.batch_size
    part = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    batches = evaluation_batches(dataset, Images(**model_config["images"]), batch_size, options.workers, **part)
    task = ClassificationTask(model, model_config, set()).to(accelerator.device)
    accuracy, skipped = measure(task, batches, accelerator, options.on_progress)
    if not accelerator.is_main_process:
        return None
    assert isinstance(accuracy, Accuracy)
    confusion = accuracy.confusion.numpy()
    per_class = confusion.diagonal() / np.maximum(confusion.sum(1), 1)
    metrics = (
        options.header("classification")
        | accuracy.compute()
        | {
            "per_class": dict(zip(names, per_class.round(4).tolist(), strict=True)),
            "confusion": confusion.tolist(),
            "skipped": {"images": skipped},
        }
    )
    place = {dataset.name(index): index for index in range(len(dataset))}
    predictions = sorted(accuracy.predictions(names), key=lambda record: place[record["file_name"]])
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "predictions.json", json.dumps(predictions, ensure_ascii=False) + "\n")
    write_json(options.out / "metrics.json", metrics)
    draw_confusion(confusion, names, options.out / "confusion.png")
    return metrics


def _check_classes(names: list[str], dataset: ClassificationDataset, options: EvaluateOptions) -> None:
    if list(dataset.class_names) != names:
        raise InputError(
            f"{options.checkpoint} knows {len(names)} classes ({and_more(names, _LISTED)}), {dataset.where} has "
            f"{len(dataset.class_names)} ({and_more(dataset.class_names, _LISTED)}); they must be the same ones"
        )
