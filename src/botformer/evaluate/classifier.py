"""Measure a classifier: top-1 and top-5 accuracy, loss, accuracy per class, the confusion matrix."""

import json
import math
from typing import Any

import numpy as np

from botformer.atomic_write import write_json, write_text
from botformer.backbone.resnet import Classifier
from botformer.classification.metrics import Accuracy, Confusion
from botformer.classification.task import ClassificationTask
from botformer.create import Loaded
from botformer.create.tile_and_flip import may_flip
from botformer.data.classification.batches import evaluation_batches
from botformer.data.classification.dataset import open_classification_dataset
from botformer.evaluate.measure import measure
from botformer.evaluate.options import EvaluateOptions
from botformer.plots.confusion_matrix import draw_confusion
from botformer.recipes.schema import Images
from botformer.training.distributed import Accelerator

_BATCH_SIZE = 64
_MAX_TABLE_CLASSES = 100
"""More would make a table of megabytes in metrics.json. What each image was taken for is in predictions.json."""
_CONFUSIONS = 100
"""Pairs of classes in metrics.json."""


def evaluate_classifier(options: EvaluateOptions, loaded: Loaded, accelerator: Accelerator) -> dict[str, Any] | None:
    """Evaluate, write metrics.json, predictions.json and confusion.png to `options.out`, and return what metrics.json
    holds. In processes other than the first: None.

    Raises:
        InputError: classes of the data that are not among those of the checkpoint.
    """
    model, model_config = loaded
    assert isinstance(model, Classifier)
    names = model_config["class_names"]
    dataset = open_classification_dataset(options.data, options.split).relabelled(names, str(options.checkpoint))
    batch_size = _BATCH_SIZE if options.batch_size is None else options.batch_size
    part = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    batches = evaluation_batches(
        dataset, Images(**model_config["images"]), batch_size, options.workers, at_most=options.at_most, **part
    )
    flip = options.flip and may_flip(model_config)
    task = ClassificationTask(model, model_config, set(), flip=flip).to(accelerator.device)
    accuracy, skipped = measure(task, batches, accelerator, options.on_progress)
    if not accelerator.is_main_process:
        return None
    assert isinstance(accuracy, Accuracy)
    confusion = accuracy.confusion()
    metrics = (
        options.header("classification", flip)
        | accuracy.compute()
        | {
            "per_class": _per_class(accuracy, names),
            "most_confused": _most_confused(confusion, names),
            "skipped": {"images": skipped},
        }
    )
    if len(names) <= _MAX_TABLE_CLASSES:
        metrics["confusion"] = _table(confusion, len(names)).tolist()
    place = {dataset.name(index): index for index in range(len(dataset))}
    predictions = sorted(accuracy.predictions(names), key=lambda record: place[record["file_name"]])
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "predictions.json", json.dumps(predictions, ensure_ascii=False) + "\n")
    write_json(options.out / "metrics.json", metrics)
    truth, prediction, counts = (column.numpy() for column in confusion)
    draw_confusion(truth, prediction, counts, names, options.out / "confusion.png")
    return metrics


def _per_class(accuracy: Accuracy, names: list[str]) -> dict[str, float]:
    """The fraction that is right, of the classes that have images."""
    fractions = zip(names, accuracy.of_classes().tolist(), strict=True)
    return {name: round(fraction, 4) for name, fraction in fractions if not math.isnan(fraction)}


def _most_confused(confusion: Confusion, names: list[str]) -> list[dict[str, str | int]]:
    """The most frequent wrong predictions."""
    cells = [cell for cell in zip(*(column.tolist() for column in confusion), strict=True) if cell[0] != cell[1]]
    cells.sort(key=lambda cell: -cell[2])
    return [
        {"truth": names[truth], "prediction": names[prediction], "images": images}
        for truth, prediction, images in cells[:_CONFUSIONS]
    ]


def _table(confusion: Confusion, num_classes: int) -> np.ndarray:
    """int64 (K, K): truth in rows, predictions in columns."""
    table = np.zeros((num_classes, num_classes), dtype=np.int64)
    truth, prediction, images = (column.numpy() for column in confusion)
    table[truth, prediction] = images
    return table
