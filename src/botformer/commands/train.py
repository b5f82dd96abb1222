"""Train a recipe on your images: botformer train RECIPE --data DIR --out DIR [--any.field value]."""

import logging
import os
import sys
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from botformer.errors import InputError
from botformer.recipes import EXPERIMENTS, Experiment, find_experiment
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe

if TYPE_CHECKING:
    from botformer.data.detection.dataset import DetectionDataset

AnyRecipe = ClassificationRecipe | DetectionRecipe

_DATA = {
    ClassificationRecipe: "DIR with train/CLASS/*.jpg and validation/CLASS/*.jpg, or with CLASS/*.jpg alone; tars; "
    "hfds/OWNER/NAME.",
    DetectionRecipe: "DIR with annotations/instances_train*.json, instances_val*.json and images (COCO), or with "
    "data.yaml (YOLO).",
}


@dataclass(frozen=True)
class RunOptions:
    out: Path = Path()
    """Where checkpoints, journal and curves go; runs/RECIPE by default."""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue the run in --out if there is one, else start. never: start, and refuse a folder with a run."""


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        _print_recipes()
        if not {"-h", "--help"} & set(arguments):
            sys.exit(2)
        return
    given = parse(find_experiment(arguments[0]), arguments[1:])
    train(given.recipe, given.data, given.out, given.resume)
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun the first process speaks for all
        console = Console(soft_wrap=True)
        console.print(f"Everything is in {given.out}. Next: botformer evaluate {given.out} --data {given.data}")


def parse(row: Experiment, arguments: list[str]) -> Any:
    """`RunOptions` with `data`, and with `recipe`: the row's, with the fields changed that the command line names."""
    kind = type(row.recipe)
    Arguments = make_dataclass(
        "Arguments",
        [
            ("data", Annotated[str, tyro.conf.arg(help=_DATA[kind])]),
            ("recipe", Annotated[kind, tyro.conf.arg(name="")]),
        ],
        bases=(RunOptions,),
        frozen=True,
        kw_only=True,
    )
    return tyro.cli(
        Arguments,
        default=Arguments(data=tyro.MISSING, out=Path("runs") / row.name, recipe=row.recipe),
        args=arguments,
        prog=f"botformer train {row.name}",
        description=f"Source: {row.source}. Paper: {row.paper}. Expect: {row.expect}. Cost: {_cost(row)}. "
        f"Command: `{row.command}`. Ours, because no source gives it: {', '.join(row.ours)}.",
    )


def train(recipe: AnyRecipe, data: str, out: Path, resume: Literal["auto", "never"]) -> dict[str, float | None]:
    """Images, network and loop of a recipe put together; the metrics of the last evaluation."""
    # Heavy, and --help should not wait for it.
    from botformer.seeding import seed_all
    from botformer.training.distributed import open_accelerator
    from botformer.training.loop import fit

    run = recipe.run
    accelerator = open_accelerator(recipe.run)
    if not accelerator.is_main_process:
        logging.disable(logging.INFO)  # one of several processes speaks for all
    share = dict(workers=run.workers, rank=accelerator.process_index, world=accelerator.num_processes)
    per_process = max(1, run.batch_size // (accelerator.num_processes * run.accumulation))
    seed_all(run.seed)  # the initial weights, the same in every process
    parts = _detection_parts if isinstance(recipe, DetectionRecipe) else _classification_parts
    task, batches, evaluation = parts(recipe, data, per_process, share)  # pyright: ignore[reportArgumentType]
    return fit(task, batches, evaluation, recipe, out, resume, accelerator)


def _classification_parts(recipe: ClassificationRecipe, data: str, per_process: int, share: dict[str, int]) -> Any:
    """Task, training batches and evaluation batches."""
    from botformer.create import create_classification_task
    from botformer.data.classification.batches import evaluation_batches, training_batches
    from botformer.data.classification.dataset import open_classification_datasets
    from botformer.data.detection.layouts import is_annotated

    if is_annotated(data):  # their folders of images would pass for classes
        raise InputError(
            f"this recipe trains a classifier, but {data} holds objects with boxes (COCO or YOLO); give it images in "
            f"class folders, DIR/train/CLASS/*.jpg, or take a recipe for detectors: {_names_of(DetectionRecipe)}"
        )
    train_source, validation_source = open_classification_datasets(data)
    task = create_classification_task(recipe, train_source.class_names)
    batches = training_batches(train_source, recipe.images, recipe.run.batch_size, recipe.run.seed, **share)
    return task, batches, evaluation_batches(validation_source, recipe.images, per_process, **share)


def _detection_parts(recipe: DetectionRecipe, data: str, per_process: int, share: dict[str, int]) -> Any:
    """Task, training batches and evaluation batches."""
    from botformer.create import create_detection_task
    from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
    from botformer.data.detection.layouts import open_detection_datasets

    train_source, validation_source = open_detection_datasets(data)
    _demand_objects(recipe, train_source, validation_source)
    task = create_detection_task(recipe, train_source.categories)
    batches = detection_training_batches(train_source, recipe.images, recipe.run.batch_size, recipe.run.seed, **share)
    return task, batches, detection_evaluation_batches(validation_source, recipe.images, per_process, **share)


def _demand_objects(recipe: DetectionRecipe, train: "DetectionDataset", validation: "DetectionDataset") -> None:
    """What cannot be learnt or measured is said before the hours that it would take."""
    from botformer.data.detection.layouts import has_shapes

    if not validation.objects:
        raise InputError(
            f"{validation.where} has no objects to measure by: {len(validation)} images, {len(validation.problems)} "
            "annotations left out; annotate some, or look at what was left out"
        )
    for source in (train, validation):
        if recipe.detector == "mask_rcnn" and source.objects and not has_shapes(source):
            raise InputError(
                f"none of the {source.objects} objects of {source.where} has a shape (segmentation), only boxes: there "
                "is nothing to make masks from; add --detector faster_rcnn"
            )


def _names_of(kind: type[AnyRecipe]) -> str:
    names = [name for name, row in EXPERIMENTS.items() if isinstance(row.recipe, kind)]
    return ", ".join(names[:5]) + ", ..."


def _print_recipes() -> None:
    console = Console()
    console.print(f"{__doc__}\n")
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("recipe", "paper", "expect", "cost"):
        table.add_column(header, overflow="fold", no_wrap=header == "recipe")
    for row in EXPERIMENTS.values():
        table.add_row(row.name, row.paper, row.expect, _cost(row))
    console.print(table)
    console.print("botformer train RECIPE --help gives a recipe's command and lists its fields with their values.")


def _cost(row: Experiment) -> str:
    return f"{row.cost} (results/{row.receipt}.json)" if row.receipt else row.cost
