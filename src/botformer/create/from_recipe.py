"""What `training.fit` trains: a network with its losses and metrics, from a recipe and the classes of the data."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from botformer.backbone.resnet import Backbone, Classifier
from botformer.classification.task import ClassificationTask
from botformer.create.from_checkpoint import weights_file
from botformer.create.networks import network_of
from botformer.detection import Detector
from botformer.detection.task import DetectionTask
from botformer.errors import InputError
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Model
from botformer.weights import load_weights

log = logging.getLogger(__name__)


def create_classification_task(recipe: ClassificationRecipe, class_names: Sequence[str]) -> ClassificationTask:
    """A classifier of these classes, with the recipe's first weights loaded."""
    model_config = {
        "task": "classification",
        "model": recipe.model.name,
        "image_size": recipe.images.size,
        "options": _options(recipe.model),
        "class_names": list(class_names),
        "images": asdict(recipe.images),
    }
    model = network_of(model_config, recipe.model.backend)
    assert isinstance(model, Classifier)
    _load_first_weights(model, recipe.model)
    return ClassificationTask(
        model,
        model_config,
        model.position_table_names(),
        label_smoothing=recipe.optimizer.label_smoothing,
        mixup=recipe.images.mixup,
        cutmix=recipe.images.cutmix,
    )


def create_detection_task(recipe: DetectionRecipe, categories: Sequence[tuple[int, str]]) -> DetectionTask:
    """A detector of these categories (id, name), with the recipe's first weights loaded: a detector's, or those of a
    classifier or a ResNet, which go into the backbone."""
    if recipe.optimizer.label_smoothing or recipe.model.dropout:
        raise InputError("optimizer.label_smoothing and model.dropout are for classifiers; leave them 0")
    options = _options(recipe.model)
    del options["dropout"]
    model_config = {
        "task": "detection",
        "detector": recipe.detector,
        "model": recipe.model.name,
        "image_size": recipe.images.size,
        "options": options,
        "settings": asdict(recipe.settings),
        "categories": [[number, name] for number, name in categories],
        "images": asdict(recipe.images),
    }
    model = network_of(model_config, recipe.model.backend)
    assert isinstance(model, Detector)
    _load_first_weights(model, recipe.model, "backbone")
    assert isinstance(model.backbone, Backbone)
    tables = {f"backbone.{name}" for name in model.backbone.position_table_names()}
    task = DetectionTask(model, model_config, categories, tables)
    task.evaluator()  # what it needs may not be installed: now is better than after the first epoch
    return task


def _load_first_weights(network: nn.Module, model: Model, part: str = "") -> None:
    if not model.weights:
        return
    match = load_weights(network, weights_file(model.weights), part)
    random = len(match.missing) + len(match.other_shape)
    if random > len(match.loaded):
        log.warning(
            "only %d of %d tensors come from %s (model.weights), the rest stays random: they seem to belong to "
            "another network than %s (model.name)",
            len(match.loaded),
            len(match.loaded) + random,
            model.weights,
            model.name,
        )


def _options(model: Model) -> dict[str, Any]:
    """What a model config keeps: the options that belong to the network, not to the run or the machine."""
    return {name: value for name, value in asdict(model).items() if name not in ("name", "weights", "backend")}
