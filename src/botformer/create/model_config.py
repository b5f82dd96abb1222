"""Model configs: what a checkpoint or a file says of its network. Made from a network, and checked before one is built.

`create.from_checkpoint.Loaded` lists the fields.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from botformer.backbone.resnet import Backbone, Classifier
from botformer.backbone.variants import ROWS
from botformer.create.networks import network_of
from botformer.detection import Detector
from botformer.errors import InputError, unknown
from botformer.recipes.check import as_whole, from_keywords, height_and_width
from botformer.recipes.detector_settings import make_settings
from botformer.recipes.model_options import make_options
from botformer.recipes.schema import DetectionImages, Images
from botformer.text import and_more

_COMMON = {"task": str, "model": str, "image_size": object, "options": dict, "images": dict}
_CHANNELS = {"in_chans": object, "mean": list, "std": list}
_FIELDS: dict[str, dict[str, Any]] = {
    "classification": _COMMON | _CHANNELS | {"class_names": list},
    "detection": _COMMON
    | _CHANNELS
    | {"detector": str, "settings": dict, "categories": list, "test_size": object}
    | {"keypoint_names": list, "keypoint_sigmas": list, "skeleton": list},
}
"""Field -> type, by task. `object`: whoever uses it looks closer."""


def model_config(model: Classifier | Detector, names: Sequence[Any]) -> dict[str, Any]:
    """What `botformer.save` needs to know of a network that you built: `save(model, model_config(model, names), file)`.

    Args:
        model: of `create_model`, or of `create_detector` around a row of the table. Weights do not matter.
        names: of the classes, in the order of the logits; of a detector's categories, in the order of its labels, or
            pairs of id and name as in COCO (ids from 1 by default). A key point detector is trained by a recipe, which
            also knows its key points.

    Raises:
        InputError: another network, another number of names, or a network whose layers were exchanged, so that it would
            not be built again: keep the state dict of such a one.
    """
    if isinstance(names, str):
        raise InputError(f"names must be a list, a name per class, got the text {names!r}")
    if isinstance(model, Classifier):
        if not isinstance(model.fc, torch.nn.Linear):
            raise InputError(
                f"fc is a {type(model.fc).__name__} now, which would not be built again; keep its state dict"
            )
        stages, task = model, "classification"
        config = {
            "class_names": [str(name) for name in names],
            "images": asdict(Images(size=max(model.image_size))),
        }
        count = model.fc.out_features
    elif isinstance(model, Detector) and isinstance(model.backbone, Backbone) and model.kind != "keypoint_rcnn":
        stages, task = model.backbone, "detection"
        config = {
            "detector": model.kind,
            "categories": _categories(names),
            "settings": asdict(model.settings),
            "images": asdict(DetectionImages(size=max(model.image_size), test_size=max(model.test_size))),
            "test_size": list(model.test_size),
        }
        count = model.num_classes
    else:
        raise InputError(
            f"a model config describes a classifier, or a detector of boxes or masks around a row of `list_models()`, "
            f"got {type(model).__name__}; of another network keep the state dict"
        )
    if len(names) != count:
        raise InputError(f"the network has {count} classes, but there are {len(names)} names")
    left_out = ("backend",) if task == "classification" else ("backend", "dropout")
    described: dict[str, Any] = {
        "task": task,
        "model": next(name for name, row in ROWS.items() if row == stages.row),
        "image_size": list(model.image_size),
        "options": {name: value for name, value in asdict(stages.options).items() if name not in left_out},
        "in_chans": stages.in_chans,
        "mean": [float(value) for value in model.mean],
        "std": [float(value) for value in model.std],
        **config,
    }
    with torch.device("meta"):
        again = {name: tensor.shape for name, tensor in network_of(described).state_dict().items()}
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    differing = sorted(name for name in again.keys() | own.keys() if again.get(name) != own.get(name))
    if differing:
        raise InputError(
            f"the network is no longer the {described['model']} that it was built as: {and_more(differing, 5)} differ; "
            "save it before it is folded or changed, or keep its state dict"
        )
    return described


def check_model_config(config: Any) -> None:
    """Types and bounds of every field, before anything is built.

    Raises:
        InputError: naming the field that this version does not know, or that has another type.
        KeyError, TypeError, ValueError: not the model config of a network.
    """
    if not isinstance(config, dict):
        raise InputError(f"expected an object, got {config!r:.80}")
    known = _FIELDS.get(config["task"])
    if known is None:
        raise ValueError(f"task {config['task']!r:.80}")
    for name, value in config.items():
        if name not in known:
            raise unknown("field", name, known)
        if not isinstance(value, known[name]):
            raise TypeError(f"{name} is {value!r:.80}")
    make_options(config["options"])
    height_and_width("image_size", config["image_size"])  # a row's own would resize the position tables in the file
    if config["task"] == "classification":
        from_keywords(Images, config["images"], "field of images")
        if not all(isinstance(name, str) for name in config["class_names"]):
            raise TypeError("class_names are not all texts")
        return
    from_keywords(DetectionImages, config["images"], "field of images")
    make_settings(config["settings"])
    for number, name in config["categories"]:
        if as_whole(number) is None or not isinstance(name, str):
            raise TypeError(f"category {number!r:.40} {name!r:.40} is no whole number and text")
    ids = [as_whole(number) for number, _ in config["categories"]]
    if len(set(ids)) != len(ids):
        raise ValueError("two categories have the same id")


def _categories(names: Sequence[Any]) -> list[list[Any]]:
    pairs = [(number, name) if isinstance(name, str) else name for number, name in enumerate(names, start=1)]
    return [[int(number), str(name)] for number, name in pairs]
