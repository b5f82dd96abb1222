"""A recipe and a data set -> a training run."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from botformer.create.from_recipe import create_classification_task, create_detection_task
from botformer.data.classification.batches import evaluation_batches, training_batches
from botformer.data.classification.dataset import open_classification_datasets
from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import has_keypoints, has_shapes, is_annotated, open_detection_datasets
from botformer.errors import InputError
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.seeding import seed_all
from botformer.training.distributed import Accelerator, open_accelerator
from botformer.training.loop import fit
from botformer.training.resume import Resume
from botformer.training.task import Batch, Task, TrainBatches


class Parts(NamedTuple):
    """What `fit` takes besides the recipe."""

    task: Task
    train: TrainBatches
    evaluation: Iterable[Batch]


def train_recipe(
    recipe: ClassificationRecipe | DetectionRecipe, data: str, out: Path, resume: Resume = "auto"
) -> dict[str, float | None]:
    """Train a recipe on `data` into the folder `out`; a run that is there is continued. Returns the metrics of the
    last evaluation.

    Raises:
        InputError: data that the recipe cannot be trained on, and what `fit` raises.
    """
    accelerator = open_accelerator(recipe.run)
    if not accelerator.is_main_process:
        logging.disable(logging.INFO)  # one of several processes speaks for all
    return fit(*make_parts(recipe, data, accelerator), recipe, out, resume, accelerator)


def make_parts(recipe: ClassificationRecipe | DetectionRecipe, data: str, accelerator: Accelerator) -> Parts:
    """The task with its initial weights, and the batches of this process.

    Raises:
        InputError: data that the recipe cannot be trained on.
    """
    seed_all(recipe.run.seed)  # the initial weights, the same in every process
    if isinstance(recipe, DetectionRecipe):
        return _detection_parts(recipe, data, accelerator)
    return _classification_parts(recipe, data, accelerator)


def _classification_parts(recipe: ClassificationRecipe, data: str, accelerator: Accelerator) -> Parts:
    if is_annotated(data):  # their folders of images would pass for classes
        raise InputError(
            f"this recipe trains a classifier, but {data} holds objects with boxes (COCO or YOLO); give it images in "
            "class folders, DIR/train/CLASS/*.jpg, or take a recipe for detectors, such as nuclei or coco_botnet50_36 "
            "(botformer train lists them)"
        )
    train, validation = open_classification_datasets(data)
    task = create_classification_task(recipe, train.class_names)
    run, shard = recipe.run, _shard(recipe, accelerator)
    return Parts(
        task,
        training_batches(train, recipe.images, run.batch_size, run.seed, **shard),
        evaluation_batches(validation, recipe.images, _evaluation_batch(recipe, accelerator), **shard),
    )


def _detection_parts(recipe: DetectionRecipe, data: str, accelerator: Accelerator) -> Parts:
    train, validation = open_detection_datasets(data, recipe.detector == "keypoint_rcnn", recipe.images.max_bad_records)
    check_objects(recipe, train, validation)
    task = create_detection_task(recipe, train.categories, train.keypoint_names, train.skeleton)
    run, shard = recipe.run, _shard(recipe, accelerator)
    return Parts(
        task,
        detection_training_batches(train, recipe.images, run.batch_size, run.seed, **shard),
        detection_evaluation_batches(validation, recipe.images, _evaluation_batch(recipe, accelerator), **shard),
    )


def _shard(recipe: ClassificationRecipe | DetectionRecipe, accelerator: Accelerator) -> dict[str, int]:
    """Which part of each batch this process reads, and with how many workers."""
    return dict(workers=recipe.run.workers, rank=accelerator.process_index, world=accelerator.num_processes)


def _evaluation_batch(recipe: ClassificationRecipe | DetectionRecipe, accelerator: Accelerator) -> int:
    """As many images at a time as in training."""
    return max(1, recipe.run.batch_size // (accelerator.num_processes * recipe.run.accumulation))


def check_objects(recipe: DetectionRecipe, train: DetectionDataset, validation: DetectionDataset) -> None:
    """What cannot be learnt or measured is said before the hours that it would take. Raises InputError."""
    if not validation.objects:
        raise InputError(f"{validation.where} has no objects to measure by: {validation.why_no_objects}")
    for dataset in (train, validation):
        if recipe.detector == "mask_rcnn" and dataset.objects and not has_shapes(dataset):
            raise InputError(
                f"none of the {dataset.objects} objects of {dataset.where} has a shape (segmentation), only boxes: "
                "there is nothing to make masks from; add --detector faster_rcnn"
            )
        if recipe.detector == "keypoint_rcnn" and not has_keypoints(dataset):
            why = (
                "none of its objects has a labelled one (v of 1 or 2)"
                if dataset.keypoint_names
                else "its categories have no 'keypoints', the list of their names"
            )
            raise InputError(
                f"{dataset.where} has no key points to learn from or to measure by: {why}; give annotations as COCO's "
                "person_keypoints_*.json, or train another kind of detector, such as --detector faster_rcnn"
            )
