"""What config.json says of a task: names, and how an image becomes the network's input."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from botformer.data.classification.transforms import MARGIN
from botformer.errors import InputError
from botformer.exportable import Exportable, ExportTask
from botformer.recipes.schema import Images


def task_config(exportable: Exportable, model_config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The task's part of config.json. Without a model config: classes are called by their numbers, and images get the
    size that the network was traced with."""
    return _OF_TASK[exportable.task](exportable, model_config)


def _classification(exportable: Exportable, model_config: Mapping[str, Any] | None) -> dict[str, Any]:
    pixels, logits = exportable.example[0], exportable.reference(*exportable.example)[0]
    height, width = pixels.shape[2:]
    fixed = 2 not in exportable.dynamic.get("pixels", {})
    if fixed and height != width:
        raise InputError(f"classifiers see squares, but the size is {height}x{width}; give one number twice")
    images = Images(size=max(height, width)) if model_config is None else Images(**model_config["images"])
    images = replace(images, size=height) if fixed else images
    names = [str(number) for number in range(logits.shape[1])] if model_config is None else model_config["class_names"]
    if len(names) != logits.shape[1]:
        raise InputError(f"the model config names {len(names)} classes, but the network has {logits.shape[1]}")
    return {
        "class_names": list(names),
        "preprocessing": {
            "size": images.size,
            "fit": images.fit,
            "evaluation_crop": images.evaluation_crop,
            "margin": list(MARGIN),
        },
    }


def _features(exportable: Exportable, model_config: Mapping[str, Any] | None) -> dict[str, Any]:
    return {}


def _detection(exportable: Exportable, model_config: Mapping[str, Any] | None) -> dict[str, Any]:
    count = exportable.settings["num_classes"]
    if model_config is None:
        return {"categories": [[number, str(number)] for number in range(1, count + 1)]}
    categories = [list(pair) for pair in model_config["categories"]]
    if len(categories) != count:
        raise InputError(f"the model config names {len(categories)} categories, but the network has {count}")
    layout = ("keypoint_names", "skeleton")
    found = {"categories": categories, **{name: model_config[name] for name in layout if name in model_config}}
    if tile := model_config["images"].get("tile"):
        found["notes"] = [
            f"botformer cuts images into tiles of {tile} px for this network (images.tile). The graph and run.py see "
            "an image whole, scaled down to the canvas, and may miss small objects: cut larger images into tiles first."
        ]
    return found


_OF_TASK: dict[ExportTask, Callable[[Exportable, Mapping[str, Any] | None], dict[str, Any]]] = {
    "classification": _classification,
    "features": _features,
    "detection": _detection,
}
