"""Names in files of older versions -> today's. Standard library only; applied once, where a file is read."""

from collections.abc import Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")

_MODULES = {
    "pyramid": "fpn",
    "proposals": "rpn",
    "boxes": "box_head",
    "masks": "mask_head",
    "keypoints": "keypoint_head",
}
"""Parts of a detector, as tensors' names begin."""

_STATE = {"card": "model_config"}
"""Fields of a checkpoint's state.json."""
_NOTHING_LOADED = {"source": "", "sha256": "", "names": []}
"""What older runs say of the weights that they started from: they do not, and learn at one rate."""
_NEWER_FIELDS = {"loaded": _NOTHING_LOADED, "data": {}, "processes": 1, "sha256": {}}
"""Of a checkpoint's state.json, with what they are in older ones."""

_IMAGES = {"flip": "hflip", "quarter_turns": "rot90"}
_SETTINGS = {
    "mask_padding": "padding_mask",
    "rpn_positive_share": "rpn_positive_fraction",
    "rpn_candidates": "rpn_pre_nms_top_n",
    "rpn_candidates_test": "rpn_pre_nms_top_n_test",
    "rpn_proposals": "rpn_post_nms_top_n",
    "roi_positive_share": "roi_positive_fraction",
    "roi_cells": "roi_canonical_cells",
    "box_cells": "box_output_size",
    "mask_cells": "mask_output_size",
    "keypoint_cells": "keypoint_output_size",
}
_DROPPED_SETTINGS = ("mask_crop",)
"""Had no effect: masks are cropped by `images.mask_crop`."""
_DROPPED_OF_RECIPE = ("source", "expect", "cost", "ours", "task")
"""What a row says about itself, and what its type says: no part of what is trained."""

_METRICS = {"pictures": "images", "ema_pictures": "ema_images"}


def tensors(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict under today's names. That of an older detector is recognised by `pyramid.`."""
    if not any(name.startswith("pyramid.") for name in state):
        return dict(state)
    parts = {name: name.partition(".") for name in state}
    return {_MODULES.get(first, first) + dot + rest: state[name] for name, (first, dot, rest) in parts.items()}


def checkpoint_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a state.json."""
    state = _NEWER_FIELDS | _renamed(content, _STATE)
    for field, mapped in (("recipe", recipe), ("model_config", model_config), ("metrics", metrics)):
        if isinstance(state.get(field), dict):
            state[field] = mapped(state[field])
    return state


def recipe(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe."""
    kept = {name: value for name, value in content.items() if name not in _DROPPED_OF_RECIPE}
    if isinstance(kept.get("run"), dict) and "tensorboard" in kept["run"]:
        run = dict(kept["run"])
        kept["run"] = {"trackers": ["tensorboard"] if run.pop("tensorboard") else []} | run
    return model_config(kept)


def model_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """A model config, whose groups of options are those of a recipe."""
    config = dict(content)
    if isinstance(config.get("images"), dict):
        config["images"] = _renamed(config["images"], _IMAGES)
    if isinstance(config.get("settings"), dict):
        kept = {name: value for name, value in config["settings"].items() if name not in _DROPPED_SETTINGS}
        config["settings"] = _renamed(kept, _SETTINGS)
    return config


def metrics(record: Mapping[str, Value]) -> dict[str, Value]:
    """A line of metrics.jsonl, or the metrics of a checkpoint."""
    return _renamed(record, _METRICS)


def _renamed(content: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    return {names.get(name, name): value for name, value in content.items()}
