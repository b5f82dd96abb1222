"""Ranges of a recipe's fields, looked at once, before anything starts."""

import math

from botformer.errors import InputError
from botformer.recipes.schema import Recipe

ABOVE_0 = math.ulp(0.0)
"""The least number that is more than 0."""

# Field -> least and greatest value. What a dataclass says of its own fields together, it checks itself.
RANGES: dict[str, tuple[float, float]] = {
    "images.size": (1, math.inf),
    "images.rand_augment_layers": (0, math.inf),
    "images.rand_augment_magnitude": (0, 30),
    "images.mixup": (0, math.inf),
    "images.cutmix": (0, math.inf),
    "images.evaluation_crop": (0.01, 1),
    "images.max_bad_files": (0, math.inf),
    "images.max_megapixels": (0, math.inf),
    "optimizer.learning_rate": (0, math.inf),
    "optimizer.reference_batch": (0, math.inf),
    "optimizer.weight_decay": (0, math.inf),
    "optimizer.label_smoothing": (0, 1),
    "optimizer.clip_norm": (0, math.inf),
    "optimizer.ema": (0, 1),
    "settings.norm_epsilon": (ABOVE_0, math.inf),
    "settings.anchor_scale": (ABOVE_0, math.inf),
    "settings.anchor_sizes": (ABOVE_0, math.inf),
    "settings.rpn_huber_delta": (ABOVE_0, math.inf),
    "settings.roi_canonical_cells": (ABOVE_0, math.inf),
    "settings.box_weights": (ABOVE_0, math.inf),
    "settings.box_huber_delta": (ABOVE_0, math.inf),
    "schedule.epochs": (1, math.inf),
    "schedule.warmup_epochs": (0, math.inf),
    "schedule.warmup_start": (0, 1),
    "schedule.milestone_factor": (0, 1),
    "run.batch_size": (1, math.inf),
    "run.accumulation": (1, math.inf),
    "run.seed": (0, math.inf),
    "run.workers": (-1, math.inf),
    "run.threads": (0, math.inf),
    "run.evaluate_every": (1, math.inf),
    "run.checkpoint_every": (1, math.inf),
    "run.keep": (1, math.inf),
    "run.max_steps": (0, math.inf),
}


def check(recipe: Recipe) -> None:
    """Raises `InputError` naming the field that is out of its range. A field that a task does not have is no matter."""
    for name, (least, greatest) in RANGES.items():
        group, _, field = name.partition(".")
        value = getattr(getattr(recipe, group, None), field, None)
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(least <= each <= greatest and math.isfinite(each) for each in values):
            bound = f"from {least:g} to {greatest:g}" if math.isfinite(greatest) else f"{least:g} or more"
            raise InputError(f"{name} is {value}; expected {'more than 0' if least == ABOVE_0 else bound}")
