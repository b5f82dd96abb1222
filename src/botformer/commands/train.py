"""Train a recipe on your images: botformer train RECIPE --data DIR --out DIR [--any.field value]."""

import logging
import os
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from botformer.errors import InputError
from botformer.recipes import RECIPES, find_recipe
from botformer.recipes.check import check
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import (
    ClassificationRecipe,
    DetectionImages,
    DetectionRecipe,
    Images,
    Model,
    Optimizer,
    Run,
    Schedule,
)

if TYPE_CHECKING:
    from botformer.data.detection.dataset import DetectionDataset

AnyRecipe = ClassificationRecipe | DetectionRecipe


@dataclass(frozen=True)
class RunOptions:
    out: Path = Path()
    """Where checkpoints, journal and curves go; runs/RECIPE by default."""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue the run in --out if there is one, else start. never: refuse to touch one."""


@dataclass(frozen=True, kw_only=True)
class ClassificationArguments(RunOptions):
    data: str
    """DIR with train/CLASS/*.jpg and validation/CLASS/*.jpg, or with CLASS/*.jpg alone; tars; hfds/OWNER/NAME."""
    model: Model = field(default_factory=Model)
    images: Images = field(default_factory=Images)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    run: Run = field(default_factory=Run)


@dataclass(frozen=True, kw_only=True)
class DetectionArguments(RunOptions):
    data: str
    """DIR with annotations/instances_train*.json, instances_val*.json and images (COCO; for key points
    person_keypoints_train*.json), or with data.yaml (YOLO)."""
    detector: Literal["mask_rcnn", "faster_rcnn", "keypoint_rcnn"] = "mask_rcnn"
    """Boxes and masks, boxes alone, or boxes and key points."""
    keypoint_sigmas: tuple[float, ...] = ()
    """Of object key point similarity, one per key point: how far people disagree, as a fraction of an object's size.
    None: COCO's for COCO's 17 points, 0.05 for all others."""
    model: Model = field(default_factory=Model)
    images: DetectionImages = field(default_factory=DetectionImages)
    settings: Settings = field(default_factory=Settings)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    run: Run = field(default_factory=Run)


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        _print_recipes()
        if not {"-h", "--help"} & set(arguments):
            sys.exit(2)
        return
    name = arguments[0]
    recipe = find_recipe(name)
    kind: Any = DetectionArguments if isinstance(recipe, DetectionRecipe) else ClassificationArguments
    groups = [field.name for field in fields(kind) if hasattr(recipe, field.name)]
    given = tyro.cli(
        kind,
        default=kind(data=tyro.MISSING, out=Path("runs") / name, **{group: getattr(recipe, group) for group in groups}),
        args=arguments[1:],
        prog=f"botformer train {name}",
        description=f"Source: {recipe.source}. Expect: {recipe.expect}. Cost: {recipe.cost}. "
        f"Ours, because no source gives it: {', '.join(recipe.ours)}.",
    )
    recipe = replace(recipe, **{group: getattr(given, group) for group in groups})
    train(recipe, given.data, given.out, given.resume)
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun the first process speaks for all
        console = Console(soft_wrap=True)
        console.print(f"Everything is in {given.out}. Next: botformer evaluate {given.out} --data {given.data}")


def train(recipe: AnyRecipe, data: str, out: Path, resume: Literal["auto", "never"]) -> dict[str, float | None]:
    """Images, network and loop of a recipe put together; the metrics of the last evaluation."""
    # Heavy, and --help should not wait for it.
    from botformer.seeding import seed_all
    from botformer.training.distributed import open_accelerator
    from botformer.training.loop import fit

    check(recipe)
    run = recipe.run
    process = open_accelerator(run)
    if not process.is_main_process:
        logging.disable(logging.INFO)  # one of several processes speaks for all
    share = dict(workers=run.workers, rank=process.process_index, world=process.num_processes)
    per_process = max(1, run.batch_size // (process.num_processes * run.accumulation))
    seed_all(run.seed)  # the initial weights, the same in every process
    parts = _detection_parts if isinstance(recipe, DetectionRecipe) else _classification_parts
    task, batches, evaluation = parts(recipe, data, per_process, share)  # pyright: ignore[reportArgumentType]
    return fit(task, batches, evaluation, recipe, out, resume)


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

    train_source, validation_source = open_detection_datasets(data, keypoints=recipe.detector == "keypoint_rcnn")
    _demand_objects(recipe, train_source, validation_source)
    task = create_detection_task(recipe, train_source.categories, train_source.keypoint_names, train_source.skeleton)
    batches = detection_training_batches(train_source, recipe.images, recipe.run.batch_size, recipe.run.seed, **share)
    return task, batches, detection_evaluation_batches(validation_source, recipe.images, per_process, **share)


def _demand_objects(recipe: DetectionRecipe, train: "DetectionDataset", validation: "DetectionDataset") -> None:
    """What cannot be learnt or measured is said before the hours that it would take."""
    from botformer.data.detection.layouts import has_keypoints, has_shapes

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
        if recipe.detector == "keypoint_rcnn" and not has_keypoints(source):
            why = (
                "none of its objects has a labelled one (v of 1 or 2)"
                if source.keypoint_names
                else "its categories have no 'keypoints', the list of their names"
            )
            raise InputError(
                f"{source.where} has no key points to learn from or to measure by: {why}; give annotations as COCO's "
                "person_keypoints_*.json, or train another kind of detector, such as --detector faster_rcnn"
            )


def _names_of(kind: type[AnyRecipe]) -> str:
    names = [name for name, recipe in RECIPES.items() if isinstance(recipe, kind)]
    return ", ".join(names[:5]) + ", ..."


def _print_recipes() -> None:
    console = Console()
    console.print(f"{__doc__}\n")
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("recipe", "expect", "cost"):
        table.add_column(header, overflow="fold", no_wrap=header == "recipe")
    for name, recipe in RECIPES.items():
        table.add_row(name, recipe.expect, recipe.cost)
    console.print(table)
    console.print("botformer train RECIPE --help lists every field of a recipe and its value there.")
