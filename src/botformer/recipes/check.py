"""Ranges and choices of every option, checked as the options are made, whoever makes them.

A rule about several fields together stands in their dataclass.
"""

import math
from dataclasses import fields
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from botformer.errors import InputError, unknown

Options = TypeVar("Options")

ABOVE_0 = math.ulp(0.0)
"""The least number above 0."""
BELOW_1 = math.nextafter(1.0, 0.0)
"""The greatest number below 1."""
ANY = (0, math.inf)
POSITIVE = (ABOVE_0, math.inf)
COUNT = (1, math.inf)
FRACTION = (0, 1)

# Field -> least and greatest value. Of a tuple: of each of its values.
RANGES: dict[str, tuple[float, float]] = {
    "model.drop_path": (0, BELOW_1),
    "model.dropout": (0, BELOW_1),
    "model.frozen_stages": (0, 5),
    "model.norm_epsilon": POSITIVE,
    "model.norm_momentum": FRACTION,
    "images.size": COUNT,
    "images.test_size": ANY,
    "images.scale_jitter": POSITIVE,
    "images.mask_crop": COUNT,
    "images.rand_augment_layers": ANY,
    "images.rand_augment_magnitude": (0, 30),
    "images.mixup": ANY,
    "images.cutmix": ANY,
    "images.evaluation_crop": (0.01, 1),
    "images.max_bad_files": ANY,
    "images.max_bad_records": ANY,
    "images.max_megapixels": ANY,
    "settings.fpn_channels": COUNT,
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
    "settings.box_output_size": COUNT,
    "settings.box_channels": COUNT,
    "settings.box_weights": POSITIVE,
    "settings.box_huber_delta": POSITIVE,
    "settings.mask_output_size": COUNT,
    "settings.mask_convolutions": COUNT,
    "settings.mask_channels": COUNT,
    "settings.keypoints": COUNT,
    "settings.keypoint_output_size": COUNT,
    "settings.keypoint_convolutions": COUNT,
    "settings.keypoint_channels": COUNT,
    "settings.score_threshold": FRACTION,
    "settings.nms_iou": FRACTION,
    "settings.max_detections": COUNT,
    "optimizer.learning_rate": ANY,
    "optimizer.reference_batch": ANY,
    "optimizer.weight_decay": ANY,
    "optimizer.label_smoothing": FRACTION,
    "optimizer.clip_norm": ANY,
    "optimizer.ema": FRACTION,
    "schedule.epochs": COUNT,
    "schedule.warmup_epochs": ANY,
    "schedule.warmup_start": FRACTION,
    "schedule.milestone_factor": FRACTION,
    "run.batch_size": COUNT,
    "run.accumulation": COUNT,
    "run.seed": ANY,
    "run.workers": (-1, math.inf),
    "run.threads": ANY,
    "run.evaluate_every": COUNT,
    "run.checkpoint_every": COUNT,
    "run.keep": COUNT,
    "run.max_steps": ANY,
}


def check_fields(options: Any, group: str) -> None:
    """Raises `InputError` naming the field of this dataclass that is out of its range or not one of its choices."""
    for name, choices in _choices(type(options)).items():
        if getattr(options, name) not in choices:
            raise unknown(f"{group}.{name}", getattr(options, name), choices)
    for field in fields(options):
        name, value = f"{group}.{field.name}", getattr(options, field.name)
        if name not in RANGES or value is None:
            continue
        least, greatest = RANGES[name]
        values = value if isinstance(value, (tuple, list)) else (value,)
        if not all(least <= each <= greatest and math.isfinite(each) for each in values):
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


@lru_cache
def _choices(kind: type) -> dict[str, tuple[str, ...]]:
    hints = get_type_hints(kind)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _range_in_words(least: float, greatest: float) -> str:
    if least == ABOVE_0:
        return "more than 0"
    if math.isinf(greatest):
        return f"{least:g} or more"
    return f"{least:g} or more, and less than 1" if greatest == BELOW_1 else f"from {least:g} to {greatest:g}"
