"""A recipe and a data set -> a training run."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from botformer.create.calibration import calibrate
from botformer.create.first_weights import (
    find_first_weights,
    load_first_weights,
    unusual_normalization,
)
from botformer.create.from_recipe import classification_task, detection_task
from botformer.data.classification.batches import evaluation_batches, training_batches
from botformer.data.classification.dataset import ClassificationDataset, open_classification_datasets
from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import has_keypoints, has_shapes, is_annotated, open_detection_datasets
from botformer.data.mirrored_names import class_with_sides
from botformer.errors import InputError
from botformer.recipes.from_json import flat
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.seeding import seed_all
from botformer.text import and_more
from botformer.training.checkpoint import State
from botformer.training.distributed import Accelerator, open_accelerator
from botformer.training.loaded_weights import RANDOM, LoadedWeights
from botformer.training.loop import fit
from botformer.training.resume import Resume, as_json, find_start, with_saved_precision
from botformer.training.run_lock import check_unlocked
from botformer.training.same_everywhere import check_same_everywhere
from botformer.training.task import Batch, Task, TrainBatches
from botformer.training.trackers import find_trackers

log = logging.getLogger(__name__)

CALIBRATION_PIXELS, CALIBRATION_LEAST, CALIBRATION_MOST = 256 * 128**2, 16, 256
"""Images that BatchNorms are calibrated by: as many as have that many pixels together, within bounds."""
CALIBRATION_AT_ONCE = 16 * 224**2
"""Pixels at a time."""

OF_THE_MACHINE = {"run.workers", "run.threads", "run.device", "model.backend"}
"""Fields of a recipe in which the processes of one run may differ."""


class Parts(NamedTuple):
    """What `fit` takes besides the recipe."""

    task: Task
    train: TrainBatches
    evaluation: Iterable[Batch]
    loaded: LoadedWeights
    calibration: Iterable[Batch] | None
    """Training images by which the BatchNorms of the loaded weights have to be calibrated before they are trained."""


def train_recipe(
    recipe: ClassificationRecipe | DetectionRecipe,
    data: str,
    out: Path,
    resume: Resume = "auto",
    extend: bool = False,
) -> dict[str, float | None]:
    """Train a recipe on `data` into the folder `out`; a run that is there is continued, by `extend` with a schedule of
    another length. Returns the metrics of the last evaluation.

    Raises:
        InputError: data that the recipe cannot be trained on, and what `fit` raises.
    """
    find_trackers(recipe.run.trackers)  # what is missing is said before the data are opened
    recipe = with_saved_precision(recipe, out)
    accelerator = open_accelerator(recipe.run)
    if not accelerator.is_main_process:
        logging.disable(logging.INFO)  # one of several processes speaks for all
    check_unlocked(out)
    start = find_start(out, recipe, resume, extend)
    parts = make_parts(recipe, data, accelerator, start[1] if start else None)
    if parts.calibration is not None:
        calibrate(parts.task, parts.calibration, parts.loaded, accelerator.device)
    return fit(parts.task, parts.train, parts.evaluation, recipe, out, resume, accelerator, parts.loaded, extend)


def make_parts(
    recipe: ClassificationRecipe | DetectionRecipe, data: str, accelerator: Accelerator, resumed: State | None = None
) -> Parts:
    """The task with its initial weights, and the batches of this process.

    A run that is `resumed` has all that it needs in its checkpoint: its first weights are not read again.

    Raises:
        InputError: data that the recipe cannot be trained on.
    """
    if isinstance(recipe, DetectionRecipe):
        with_keypoints = recipe.detector == "keypoint_rcnn"
        train, validation = open_detection_datasets(data, with_keypoints, recipe.images.max_bad_records)
    elif is_annotated(data):  # their folders of images would pass for classes
        raise InputError(
            f"this recipe trains a classifier, but {data} holds objects with boxes (COCO or YOLO); give it images in "
            "class folders, DIR/train/CLASS/*.jpg, or take a recipe for detectors, such as nuclei or coco_botnet50_36 "
            "(botformer train lists them)"
        )
    else:
        train, validation = open_classification_datasets(data)
    if accelerator.is_main_process:
        _warn_of_flips(recipe, train.class_names)
    return parts_of(recipe, train, validation, accelerator, resumed)


def _warn_of_flips(recipe: ClassificationRecipe | DetectionRecipe, class_names: Sequence[str]) -> None:
    flips = recipe.images.hflip and (isinstance(recipe, DetectionRecipe) or recipe.images.augmentation != "none")
    if flips and (name := class_with_sides(class_names)):
        log.warning(
            "half of the training images are flipped left to right, and the class %r looks otherwise in a mirror: "
            "--images.no-hflip leaves the flips out",
            name,
        )


def parts_of(
    recipe: ClassificationRecipe | DetectionRecipe,
    train: ClassificationDataset | DetectionDataset,
    validation: ClassificationDataset | DetectionDataset,
    accelerator: Accelerator,
    resumed: State | None = None,
) -> Parts:
    """As `make_parts`, of data sets that are open; of the kind that the recipe is for."""
    if accelerator.num_processes > 1:
        check_same_everywhere(accelerator, _facts(recipe, train, validation, resumed))
    first = None if resumed else accelerator.of_main_process(find_first_weights(recipe.model))
    normalization = unusual_normalization(resumed.model_config) if resumed else first.normalization if first else {}
    seed_all(recipe.run.seed)  # the initial weights, the same in every process
    run, shard = recipe.run, _shard(recipe, accelerator)
    in_evaluation: dict[str, Any] = shard | dict(batch_size=recipe.evaluation_batch, at_most=run.evaluation_images)
    calibrated = first is not None and first.variances_lost
    if isinstance(recipe, DetectionRecipe):
        assert isinstance(train, DetectionDataset)
        assert isinstance(validation, DetectionDataset)
        check_objects(recipe, train, validation)
        task = detection_task(recipe, train.categories, train.keypoint_names, train.skeleton, normalization)
        in_calibration = _calibration_shard(recipe, len(train))
        untiled = replace(recipe.images, tile=0)  # as many canvases as images
        return Parts(
            task,
            detection_training_batches(train, recipe.images, run.batch_size, run.seed, **shard),
            detection_evaluation_batches(validation, recipe.images, **in_evaluation),
            load_first_weights(task, first, recipe.model.name) if first else RANDOM,
            detection_evaluation_batches(train, untiled, **in_calibration) if calibrated else None,
        )
    assert isinstance(train, ClassificationDataset)
    assert isinstance(validation, ClassificationDataset)
    task = classification_task(recipe, train.class_names, normalization)
    in_calibration = _calibration_shard(recipe, len(train))
    return Parts(
        task,
        training_batches(train, recipe.images, run.batch_size, run.seed, **shard),
        evaluation_batches(validation, recipe.images, **in_evaluation),
        load_first_weights(task, first, recipe.model.name) if first else RANDOM,
        evaluation_batches(train, recipe.images, **in_calibration) if calibrated else None,
    )


def _facts(
    recipe: ClassificationRecipe | DetectionRecipe,
    train: ClassificationDataset | DetectionDataset,
    validation: ClassificationDataset | DetectionDataset,
    resumed: State | None,
) -> dict[str, str]:
    """What has to be the same in every process."""
    fields = {name: str(value) for name, value in flat(as_json(recipe)).items() if name not in OF_THE_MACHINE}
    return fields | {
        "checkpoint to continue from": f"step {resumed.step}" if resumed else "none",
        "classes": _classes(train),
        "training images": _images(train),
        "validation images": _images(validation),
    }


def _classes(dataset: ClassificationDataset | DetectionDataset) -> str:
    if isinstance(dataset, DetectionDataset):
        names = [f"{category.id} {category.name}" for category in dataset.categories] + [*dataset.keypoint_names]
    else:
        names = list(dataset.class_names)
    return f"{len(names)} ({and_more(names, 5)}; {_digest(names)})"


def _images(dataset: ClassificationDataset | DetectionDataset) -> str:
    names = [dataset.name(index) for index in range(len(dataset))]
    labels = dataset.labels.tolist() if isinstance(dataset, ClassificationDataset) else [dataset.annotations_sha256]
    return f"{len(names)} ({_digest([*names, *labels])})"


def _digest(items: list) -> str:
    whole = hashlib.sha256()
    for item in items:
        whole.update(f"{item}\0".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:8]


def _shard(recipe: ClassificationRecipe | DetectionRecipe, accelerator: Accelerator) -> dict[str, Any]:
    """Which part of each batch this process reads, and with how many workers."""
    return dict(workers=recipe.run.workers, rank=accelerator.process_index, world=accelerator.num_processes)


def calibration_images(recipe: ClassificationRecipe | DetectionRecipe) -> int:
    """How many images calibrate the BatchNorms, where there are so many."""
    return min(max(CALIBRATION_PIXELS // _evaluation_side(recipe) ** 2, CALIBRATION_LEAST), CALIBRATION_MOST)


def _evaluation_side(recipe: ClassificationRecipe | DetectionRecipe) -> int:
    return recipe.images.canvas if isinstance(recipe, DetectionRecipe) else recipe.images.size


def _calibration_shard(recipe: ClassificationRecipe | DetectionRecipe, images: int) -> dict[str, Any]:
    """Every n-th image, and how many at a time: the same in every process, and whatever the number of workers is."""
    at_once = max(1, CALIBRATION_AT_ONCE // _evaluation_side(recipe) ** 2)
    world = max(1, -(-images // calibration_images(recipe)))
    return dict(batch_size=at_once, workers=recipe.run.workers, rank=0, world=world)


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
