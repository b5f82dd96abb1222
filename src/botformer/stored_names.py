"""Names in files that older versions wrote -> today's. Standard library only; applied once, where a file is read."""

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
_DROPPED = {"settings": ("mask_crop",)}
"""Options that had no effect on what a recipe trains: masks are cropped by `images.mask_crop`."""

_METRICS = {"pictures": "images", "ema_pictures": "ema_images"}


def tensors(state: Mapping[str, Value]) -> dict[str, Value]:
    """A state dict under today's names. A detector's is told by its backbone and its first part's old name."""
    if not any(name.startswith("pyramid.") for name in state):
        return dict(state)
    parts = {name: name.partition(".") for name in state}
    return {_MODULES.get(first, first) + dot + rest: state[name] for name, (first, dot, rest) in parts.items()}


def checkpoint_state(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a state.json."""
    state = _renamed(content, _STATE)
    for field, mapped in (("recipe", recipe), ("model_config", recipe), ("metrics", metrics)):
        if isinstance(state.get(field), dict):
            state[field] = mapped(state[field])
    return state


def recipe(content: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe, or a model config, which has the same groups of options."""
    groups = dict(content)
    for group, names in (("images", _IMAGES), ("settings", _SETTINGS)):
        if isinstance(groups.get(group), dict):
            kept = {name: value for name, value in groups[group].items() if name not in _DROPPED.get(group, ())}
            groups[group] = _renamed(kept, names)
    return groups


def metrics(record: Mapping[str, Value]) -> dict[str, Value]:
    """A line of metrics.jsonl, or the metrics of a checkpoint."""
    return _renamed(record, _METRICS)


def _renamed(content: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    return {names.get(name, name): value for name, value in content.items()}
