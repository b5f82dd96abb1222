"""What `training.fit` trains: a network with its losses and metrics, from a recipe and the classes of the data."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from botformer.backbone.resnet import Backbone, Classifier
from botformer.classification.task import ClassificationTask
from botformer.create.first_weights import find_first_weights, load_first_weights
from botformer.create.networks import network_of
from botformer.detection import Detector
from botformer.detection.evaluation.oks import keypoint_sigmas
from botformer.detection.task import DetectionTask
from botformer.errors import InputError
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Model


def create_classification_task(recipe: ClassificationRecipe, class_names: Sequence[str]) -> ClassificationTask:
    """A classifier of these classes, with the recipe's first weights loaded."""
    first = find_first_weights(recipe.model)
    task = classification_task(recipe, class_names, first.normalization if first else {})
    if first:
        load_first_weights(task, first, recipe.model.name)
    return task


def classification_task(
    recipe: ClassificationRecipe, class_names: Sequence[str], normalization: dict[str, list[float]]
) -> ClassificationTask:
    """As above, with random weights. `normalization`: `mean` and `std` of a model config, if any."""
    model_config = {
        "task": "classification",
        "model": recipe.model.name,
        "image_size": recipe.images.size,
        "options": _options(recipe.model),
        "class_names": list(class_names),
        "images": asdict(recipe.images),
        **normalization,
    }
    model = network_of(model_config, recipe.model.backend)
    assert isinstance(model, Classifier)
    return ClassificationTask(
        model,
        model_config,
        model.position_table_names(),
        label_smoothing=recipe.optimizer.label_smoothing,
        mixup=recipe.images.mixup,
        cutmix=recipe.images.cutmix,
    )


def create_detection_task(
    recipe: DetectionRecipe,
    categories: Sequence[tuple[int, str]],
    keypoint_names: Sequence[str] = (),
    skeleton: Sequence[tuple[int, int]] = (),
) -> DetectionTask:
    """A detector of these categories (id, name), with the recipe's first weights loaded: a detector's, or those of a
    classifier or a ResNet, which go into the backbone.

    A key point detector also needs the data's `keypoint_names`, which say how many there are, and the pairs of their
    places, from 0, that make up the `skeleton`.
    """
    first = find_first_weights(recipe.model)
    task = detection_task(recipe, categories, keypoint_names, skeleton, first.normalization if first else {})
    if first:
        load_first_weights(task, first, recipe.model.name)
    return task


def detection_task(
    recipe: DetectionRecipe,
    categories: Sequence[tuple[int, str]],
    keypoint_names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    normalization: dict[str, list[float]],
) -> DetectionTask:
    """As above, with random weights. `normalization`: `mean` and `std` of a model config, if any."""
    if recipe.optimizer.label_smoothing or recipe.model.dropout:
        raise InputError("optimizer.label_smoothing and model.dropout are for classifiers; leave them 0")
    options = _options(recipe.model)
    del options["dropout"]
    settings, keypoints = recipe.settings, {}
    if recipe.detector == "keypoint_rcnn":
        settings = _settings_for(settings, keypoint_names)
        keypoints = {
            "keypoint_names": list(keypoint_names),
            "skeleton": [list(pair) for pair in skeleton],
            "keypoint_sigmas": keypoint_sigmas(keypoint_names, recipe.keypoint_sigmas).tolist(),
        }
    model_config = {
        "task": "detection",
        "detector": recipe.detector,
        "model": recipe.model.name,
        "image_size": recipe.images.size,
        "options": options,
        "settings": asdict(settings),
        "categories": [[number, name] for number, name in categories],
        "images": asdict(recipe.images),
        **keypoints,
        **normalization,
    }
    model = network_of(model_config, recipe.model.backend)
    assert isinstance(model, Detector)
    assert isinstance(model.backbone, Backbone)
    tables = {f"backbone.{name}" for name in model.backbone.position_table_names()}
    task = DetectionTask(model, model_config, categories, tables)
    task.evaluator()  # what it needs may not be installed: now is better than after the first epoch
    return task


def _settings_for(settings: Settings, keypoint_names: Sequence[str]) -> Settings:
    """With as many key points as there are names."""
    if not keypoint_names:
        raise InputError("keypoint_rcnn needs the names of the data's key points, and there are none")
    if settings.keypoints not in (len(keypoint_names), Settings().keypoints):
        raise InputError(
            f"settings.keypoints is {settings.keypoints}, but the data has {len(keypoint_names)} key points "
            f"({', '.join(keypoint_names)}); leave it out: the number is taken from the data"
        )
    return replace(settings, keypoints=len(keypoint_names))


def _options(model: Model) -> dict[str, Any]:
    """What a model config keeps: the options that belong to the network, not to the run or the machine."""
    return {name: value for name, value in asdict(model).items() if name not in ("name", "weights", "backend")}
