"""Measure a trained network on pictures with labels: botformer evaluate RUN --data DIR."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Device = Literal["auto", "cuda", "mps", "cpu"]


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional]
    """The --out folder of a training run (its best checkpoint), or the folder of one checkpoint."""
    data: str
    """Pictures in class folders, as for `botformer train`."""
    split: str = "validation"
    """Which part of the data: validation, train, or any other folder in it such as test."""
    out: Path | None = None
    """Where results.json and confusion.png go; evaluation/ in the run by default."""
    batch_size: int = 64
    workers: int = -1
    device: Device = "auto"


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer evaluate", description=__doc__)
    from rich.console import Console

    out = given.out or given.checkpoint / "evaluation"
    results = evaluate_checkpoint(
        given.checkpoint, given.data, given.split, out, given.batch_size, given.workers, given.device
    )
    console = Console(soft_wrap=True, quiet=int(os.environ.get("RANK", "0")) > 0)
    console.print(
        f"{given.split} of {given.data}: "
        + ", ".join(f"{name} {results[name]:.4f}" for name in ("top1", "top5", "loss") if name in results)
        + f" on {results['pictures']:,} pictures"
    )
    worst = sorted(results["per_class"].items(), key=lambda item: item[1])[:5]
    console.print("lowest classes: " + ", ".join(f"{name} {value:.1%}" for name, value in worst))
    if results["skipped"]:
        console.print(
            f"{len(results['skipped'])} pictures could not be read and were left out; results.json lists them"
        )
    console.print(f"details in {out / 'results.json'} and {out / 'confusion.png'}")


def evaluate_checkpoint(
    checkpoint: Path, data: str, split: str, out: Path, batch_size: int, workers: int, device: Device
) -> dict[str, Any]:
    """Evaluate, write OUT/results.json and OUT/confusion.png, and return what results.json holds."""
    import json

    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from botformer.classification.metrics import Accuracy
    from botformer.classification.task import ClassificationTask
    from botformer.create import load
    from botformer.data.batches import evaluation_batches
    from botformer.data.sources import open_source
    from botformer.errors import InputError
    from botformer.pictures.confusion import draw_confusion
    from botformer.recipes.schema import Images, Run
    from botformer.training.devices import open_accelerator
    from botformer.training.evaluation import evaluate

    accelerator = open_accelerator(Run(device=device, precision="float32"))
    if not accelerator.is_main_process:
        logging.disable(logging.INFO)
    model, card = load(checkpoint)
    source = open_source(data, split)
    if list(source.class_names) != card["class_names"]:
        raise InputError(
            f"{checkpoint} knows {len(card['class_names'])} classes ({_some(card['class_names'])}), {source.where} has "
            f"{len(source.class_names)} ({_some(list(source.class_names))}); they must be the same ones"
        )
    share = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    batches = evaluation_batches(source, Images(**card["images"]), batch_size, workers, **share)
    task = ClassificationTask(model, card, set()).to(accelerator.device)
    console = Console(stderr=True, quiet=not accelerator.is_main_process)
    accuracy = evaluate(task, track(batches, "evaluating", console=console, transient=True), accelerator)
    assert isinstance(accuracy, Accuracy)
    confusion = accuracy.confusion.numpy()
    names = card["class_names"]
    shares = confusion.diagonal() / np.maximum(confusion.sum(1), 1)
    results = accuracy.compute() | {
        "checkpoint": str(checkpoint),
        "data": data,
        "split": split,
        "per_class": dict(zip(names, shares.round(4).tolist(), strict=True)),
        "confusion": confusion.tolist(),
        "skipped": batches.bad,
    }
    if not accelerator.is_main_process:
        return results
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_confusion(confusion, names, out / "confusion.png")
    return results


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
