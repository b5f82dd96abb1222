"""Measure a classifier: top 1 and top 5, every class, who is taken for whom."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from botformer.commands.evaluate import Arguments
from botformer.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from botformer.create import Loaded

_BATCH_SIZE = 64


def evaluate_classifier(given: Arguments, loaded: "Loaded", accelerator: "Accelerator") -> dict[str, Any]:
    """Evaluate, write results.json and confusion.png to `given.folder`, and return what results.json holds.

    Raises `InputError` where the classes of the data are not those of the checkpoint.
    """
    import numpy as np
    from accelerate.utils import gather_object
    from rich.progress import track

    from botformer.backbone.resnet import Classifier
    from botformer.classification.metrics import Accuracy
    from botformer.classification.task import ClassificationTask
    from botformer.data.classification.batches import evaluation_batches
    from botformer.data.classification.dataset import open_classification_dataset
    from botformer.plots.confusion_matrix import draw_confusion
    from botformer.recipes.schema import Images
    from botformer.training.evaluation_loop import evaluate

    model, model_config = loaded
    assert isinstance(model, Classifier)
    source = open_classification_dataset(given.data, given.split)
    if list(source.class_names) != model_config["class_names"]:
        raise InputError(
            f"{given.checkpoint} knows {len(model_config['class_names'])} classes ({_some(model_config['class_names'])}), "
            f"{source.where} has {len(source.class_names)} ({_some(list(source.class_names))}); they must be the same "
            "ones"
        )
    share = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    batch_size = _BATCH_SIZE if given.batch_size is None else given.batch_size
    batches = evaluation_batches(source, Images(**model_config["images"]), batch_size, given.workers, **share)
    task = ClassificationTask(model, model_config, set()).to(accelerator.device)
    console = Console(stderr=True, quiet=not accelerator.is_main_process)
    accuracy = evaluate(task, track(batches, "evaluating", console=console, transient=True), accelerator)
    assert isinstance(accuracy, Accuracy)
    confusion = accuracy.confusion.numpy()
    names = model_config["class_names"]
    shares = confusion.diagonal() / np.maximum(confusion.sum(1), 1)
    results = accuracy.compute() | {
        "task": "classification",
        "checkpoint": str(given.checkpoint),
        "data": given.data,
        "split": given.split,
        "per_class": dict(zip(names, shares.round(4).tolist(), strict=True)),
        "confusion": confusion.tolist(),
        "skipped": {file: reason for bad in gather_object([batches.bad]) for file, reason in sorted(bad.items())},
    }
    if not accelerator.is_main_process:
        return results
    out = given.folder
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_confusion(confusion, names, out / "confusion.png")
    return results


def print_classification(results: dict[str, Any], out: Path, console: Console) -> None:
    console.print(
        f"{results['split']} of {results['data']}: "
        + ", ".join(f"{name} {results[name]:.4f}" for name in ("top1", "top5", "loss") if name in results)
        + f" on {results['images']:,} images"
    )
    worst = sorted(results["per_class"].items(), key=lambda item: item[1])[:5]
    console.print("lowest classes: " + ", ".join(f"{name} {value:.1%}" for name, value in worst))
    if results["skipped"]:
        console.print(f"{len(results['skipped'])} images could not be read and were left out; results.json lists them")
    console.print(f"details in {out / 'results.json'} and {out / 'confusion.png'}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
