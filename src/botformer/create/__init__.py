"""Where the parts meet: networks by name, tasks from recipes, trained networks from checkpoints."""

from botformer.create.loading import Loaded, load
from botformer.create.networks import create_backbone, create_detector, create_model, list_models
from botformer.create.tasks import create_classification_task, create_detection_task

__all__ = [
    "Loaded",
    "create_backbone",
    "create_classification_task",
    "create_detection_task",
    "create_detector",
    "create_model",
    "list_models",
    "load",
]
