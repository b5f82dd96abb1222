"""Ranges and choices of every option, checked as the options are made, whoever makes them.

A rule about several fields together stands in their dataclass.
"""

import math
import operator
import sys
from dataclasses import fields
from functools import lru_cache
from numbers import Real
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from botformer.errors import InputError, unknown

Options = TypeVar("Options")

_OTHER = object()
"""Stands for a value of another type."""

ABOVE_0 = math.ulp(0.0)
"""The least number above 0."""
BELOW_1 = math.nextafter(1.0, 0.0)
"""The greatest number below 1."""
ANY = (0, math.inf)
POSITIVE = (ABOVE_0, math.inf)
COUNT = (1, math.inf)
LARGEST_PX = 65_536
"""No side of an image that a network is made for is longer: what stands beyond is a mistake, found before memory is."""
PIXELS = (1, LARGEST_PX)
WIDTH = (1, 65_536)
"""Channels of a layer."""
DEPTH = (1, 1_000)
"""Layers one after the other."""
CELLS = (1, 1_024)
"""Side of a map of one region."""
FRACTION = (0, 1)

# Field -> least and greatest value. Of a tuple: of each of its values.
RANGES: dict[str, tuple[float, float]] = {
    "model.drop_path": (0, BELOW_1),
    "model.dropout": (0, BELOW_1),
    "model.frozen_stages": (0, 5),
    "model.norm_epsilon": POSITIVE,
    "model.norm_momentum": FRACTION,
    "images.size": PIXELS,
    "images.test_size": (0, LARGEST_PX),
    "images.scale_jitter": POSITIVE,
    "images.mask_crop": CELLS,
    "images.crop_around_object": FRACTION,
    "images.copy_paste": FRACTION,
    "images.repeat_threshold": FRACTION,
    "images.tile": (0, LARGEST_PX),
    "images.rand_augment_layers": ANY,
    "images.rand_augment_magnitude": (0, 30),
    "images.mixup": ANY,
    "images.cutmix": ANY,
    "images.evaluation_crop": (0.01, 1),
    "images.least_area": (ABOVE_0, 1),
    "images.balance": FRACTION,
    "images.max_bad_files": ANY,
    "images.max_bad_records": ANY,
    "images.max_megapixels": ANY,
    "settings.fpn_channels": WIDTH,
    "settings.norm_epsilon": POSITIVE,
    "settings.norm_momentum": FRACTION,
    "settings.anchor_scale": POSITIVE,
    "settings.anchor_sizes": POSITIVE,
    "settings.anchor_ratios": POSITIVE,
    "settings.rpn_positive_iou": FRACTION,
    "settings.rpn_negative_iou": FRACTION,
    "settings.rpn_samples": COUNT,
    "settings.rpn_positive_fraction": FRACTION,
    "settings.rpn_huber_delta": POSITIVE,
    "settings.rpn_nms_iou": FRACTION,
    "settings.rpn_pre_nms_top_n": COUNT,
    "settings.rpn_pre_nms_top_n_test": COUNT,
    "settings.rpn_post_nms_top_n": COUNT,
    "settings.roi_samples": COUNT,
    "settings.roi_positive_fraction": FRACTION,
    "settings.roi_positive_iou": FRACTION,
    "settings.roi_canonical_cells": POSITIVE,
    "settings.roi_sampling_points": COUNT,
    "settings.box_output_size": CELLS,
    "settings.box_channels": WIDTH,
    "settings.box_weights": POSITIVE,
    "settings.box_huber_delta": POSITIVE,
    "settings.mask_output_size": CELLS,
    "settings.mask_convolutions": DEPTH,
    "settings.mask_channels": WIDTH,
    "settings.keypoints": WIDTH,
    "settings.keypoint_output_size": CELLS,
    "settings.keypoint_convolutions": DEPTH,
    "settings.keypoint_channels": WIDTH,
    "settings.score_threshold": FRACTION,
    "settings.nms_iou": FRACTION,
    "settings.max_detections": COUNT,
    "optimizer.learning_rate": ANY,
    "optimizer.reference_batch": ANY,
    "optimizer.loaded_rate": FRACTION,
    "optimizer.weight_decay": ANY,
    "optimizer.label_smoothing": FRACTION,
    "optimizer.clip_norm": ANY,
    "optimizer.ema": FRACTION,
    "schedule.epochs": COUNT,
    "schedule.steps": ANY,
    "schedule.warmup_epochs": ANY,
    "schedule.warmup_start": FRACTION,
    "schedule.milestones": ANY,
    "schedule.milestone_factor": FRACTION,
    "run.batch_size": COUNT,
    "run.accumulation": COUNT,
    "run.seed": ANY,
    "run.workers": (-1, math.inf),
    "run.threads": ANY,
    "run.evaluate_every": POSITIVE,
    "run.evaluation_images": ANY,
    "run.checkpoint_every": POSITIVE,
    "run.checkpoint_every_steps": ANY,
    "run.checkpoint_every_minutes": ANY,
    "run.keep": COUNT,
    "run.max_steps": ANY,
}


def is_finite(number: float) -> bool:
    """Neither NaN nor infinite; nor an integer too large for a float, with which `math.isfinite` fails."""
    return abs(number) <= sys.float_info.max


def as_whole(value: object) -> int | None:
    """A whole number of Python, of NumPy, or in a tensor, as an int; None of anything else, True and 2.0 included."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
        return None
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None


def height_and_width(name: str, size: Any, unit: str = "pixel") -> tuple[int, int]:
    """(height, width) in that unit from one number or from two, in a tuple, an array or a list as JSON keeps it.

    Raises `InputError` for anything but one or two whole numbers from 1 to `LARGEST_PX`.
    """
    side = as_whole(size)
    if side is not None:
        sides = [side, side]
    elif isinstance(size, tuple | list) or getattr(size, "ndim", 0) == 1:  # not a dict or text, whose items are others
        sides = [as_whole(each) for each in size]
    else:
        sides = []
    whole = [side for side in sides if side is not None and 1 <= side <= LARGEST_PX]
    if len(sides) != 2 or len(whole) != 2:
        raise InputError(
            f"{name} must be at least 1 {unit} and at most {LARGEST_PX}, one whole number or (height, width), "
            f"got {size!r}"
        )
    return whole[0], whole[1]


def check_fields(options: Any, group: str) -> None:
    """Raises `InputError` naming the field of this dataclass that has another type, is out of its range or is not one
    of its choices. Numbers of NumPy become Python's, and lists tuples."""
    for name, hint in _hints(type(options)).items():
        value = getattr(options, name)
        converted = _converted(value, hint)
        if converted is _OTHER:
            raise InputError(f"{group}.{name} is {value!r}; expected {_type_in_words(hint)}")
        if converted is not value:
            object.__setattr__(options, name, converted)
    for name, choices in _choices(type(options)).items():
        if getattr(options, name) not in choices:
            raise unknown(f"{group}.{name}", getattr(options, name), choices)
    for field in fields(options):
        name, value = f"{group}.{field.name}", getattr(options, field.name)
        if name not in RANGES or value is None:
            continue
        least, greatest = RANGES[name]
        values = value if isinstance(value, (tuple, list)) else (value,)
        if not all(least <= each <= greatest and is_finite(each) for each in values):
            raise InputError(f"{name} is {value}; expected {_range_in_words(least, greatest)}")


def from_keywords(kind: type[Options], options: dict[str, Any], what: str) -> Options:
    """A dataclass of options from keywords, as JSON keeps them too.

    An unknown name suggests the nearest (`InputError`).
    """
    known = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    for name in options:
        if name not in known:
            raise unknown(what, name, known)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()})


def _converted(value: Any, hint: Any) -> Any:
    """The value as the type of its field wants it; `_OTHER` if it is of another type."""
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return value if isinstance(value, str) else _OTHER
    if get_origin(hint) in (UnionType, Union):  # a number or None
        return next((c for c in (_converted(value, kind) for kind in arguments) if c is not _OTHER), _OTHER)
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple | list):
            return _OTHER
        kinds = arguments[:1] * len(value) if Ellipsis in arguments else arguments
        parts = [_converted(*pair) for pair in zip(value, kinds, strict=False)]
        if len(value) != len(kinds) or any(part is _OTHER for part in parts):
            return _OTHER
        return value if isinstance(value, tuple) and all(map(operator.is_, value, parts)) else tuple(parts)
    if hint is int:
        whole = as_whole(value)
        return _OTHER if whole is None else value if type(value) is int else whole
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, Real):
            return _OTHER
        number = _float(value)
        return value if type(value) in (int, float) and is_finite(number) else number
    if hint in (str, bool, type(None)):
        return value if isinstance(value, hint) else _OTHER
    return value  # a group of options, which checks itself


def _float(value: Any) -> Any:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _type_in_words(hint: Any) -> str:
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(arguments)}"
    if get_origin(hint) in (UnionType, Union):
        return " or ".join(_type_in_words(kind) for kind in arguments)
    if get_origin(hint) is tuple:
        count = "any number" if Ellipsis in arguments else str(len(arguments))
        return f"a list of {count}, each {_type_in_words(arguments[0])}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    return words[hint]


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@lru_cache
def _choices(kind: type) -> dict[str, tuple[str, ...]]:
    return {name: get_args(hint) for name, hint in _hints(kind).items() if get_origin(hint) is Literal}


def _range_in_words(least: float, greatest: float) -> str:
    if least == ABOVE_0:
        return "more than 0"
    if math.isinf(greatest):
        return f"{least:g} or more"
    return f"{least:g} or more, and less than 1" if greatest == BELOW_1 else f"from {least:g} to {greatest:g}"
