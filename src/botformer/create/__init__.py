"""Where the parts meet: networks by name, tasks from recipes, trained networks from checkpoints."""

from botformer.create.from_checkpoint import Loaded, load
from botformer.create.from_recipe import create_classification_task, create_detection_task
from botformer.create.model_config import model_config
from botformer.create.networks import create_backbone, create_detector, create_model, list_models

__all__ = [
    "Loaded",
    "create_backbone",
    "create_classification_task",
    "create_detection_task",
    "create_detector",
    "create_model",
    "list_models",
    "load",
    "model_config",
]
