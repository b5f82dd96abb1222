"""A folder of images and the minutes there are -> a recipe that ends in time."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch

from botformer.backbone.flops import count
from botformer.backbone.variants import find_row
from botformer.create.train_recipe import calibration_images
from botformer.data.classification.dataset import ClassificationDataset
from botformer.data.mirrored_names import class_with_sides
from botformer.errors import InputError
from botformer.planning.budget import NIGHT_S, WARMUP, Length, Speed, Work, length
from botformer.planning.candidate import Candidate
from botformer.planning.classification_candidates import classification_candidates
from botformer.planning.detection_candidates import detection_candidates
from botformer.planning.look_at_data import DETECTORS, Found, image_facts
from botformer.planning.search import search
from botformer.planning.step_times import StepTimer, Timed, time_with_loader
from botformer.recipes.from_json import with_fields
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.weights.imagenet import IMAGENET, find_imagenet_weights

log = logging.getLogger("botformer.planning")

TIMING_FRACTION = 0.08
"""Of the minutes, spent on timing."""
_TIMING_S, _MOST_TIMING_S = 60.0, 120.0
"""Spent on timing where there is no budget, and at most."""
_LEAST_TIMING_S = 4.0
_TRIAL_IMAGES = 48
"""That a trial computes, about."""
_LEAST_TRIALS = 2
"""Candidates that are timed however little time there is, if making their networks is most of it."""
_NOT_VERIFIED = 1.15
"""How much slower than a few steps alone a run may be that was not timed with its loader."""


@dataclass(frozen=True)
class PlanRow:
    """One line of the table of plans."""

    model: str
    weights: str
    """As model.weights; "": random."""
    px: int
    batch_size: int
    images_per_s: float | None
    """None: it was not timed."""
    epochs: float | None
    seconds: float | None
    """From here to the end."""
    chosen: bool
    remark: str
    """Why it was chosen or not; empty: a better one fits."""
    why: str
    """What it is."""
    measured: dict[str, float]
    """Milliseconds per image: `train` (all together), `step` (the network), `read` (one process), `evaluate`; and
    `create_s`, seconds until the first step."""


@dataclass(frozen=True)
class TrainingPlan:
    recipe: ClassificationRecipe | DetectionRecipe
    """Complete: nothing in it is left to the machine or the clock."""
    rows: list[PlanRow]
    seconds: float
    """From here to the end."""
    is_enough: bool
    """The chosen candidate gets what it needs within the time."""
    tests: bool
    """The test split is evaluated at the end."""
    notes: list[str]
    """What was decided from the data, and how to decide otherwise."""


def make_plan_for(
    found: Found,
    minutes: float | None,
    fixed: Mapping[str, Any],
    began: float,
    find_weights: Callable[[str], Any] = find_imagenet_weights,
    clock: Callable[[], float] = time.monotonic,
) -> TrainingPlan:
    """Time candidates on these images and take the first that gets what it needs.

    Args:
        minutes: from `began`, by `clock`, to the end, everything counted. None: a full training.
        fixed: fields of the recipe that the user has set, by their names on the command line.
        find_weights: where ImageNet weights for a row of that name would come from; None: nowhere.
    """
    unreadable: set[str] = set()
    while True:
        try:
            candidates = _candidates(found, fixed, lambda name: None if name in unreadable else find_weights(name))
            return _plan_of(candidates, found, minutes, fixed, began, clock)
        except _UnreadableWeightsError as error:
            log.warning("weights that were found cannot be read: %s", error)
            unreadable.add(error.model)


class _UnreadableWeightsError(Exception):
    def __init__(self, model: str, reason: InputError) -> None:
        super().__init__(str(reason))
        self.model = model


def _plan_of(
    candidates: list[Candidate],
    found: Found,
    minutes: float | None,
    fixed: Mapping[str, Any],
    began: float,
    clock: Callable[[], float],
) -> TrainingPlan:
    work = Work(len(found.train), len(found.validation), found.test)
    timing_s = timing_seconds(minutes)
    first = clock()
    timer = StepTimer(found.train, found.validation, set(fixed))
    trials: list[Timed] = []

    def left_s() -> float | None:
        return None if minutes is None else began + 60 * minutes - clock()

    def measure(place: int) -> Timed:
        recipe = candidates[place].recipe
        try:
            trials.append(timer.time(recipe, timing_s / 20))
        except InputError as error:
            if recipe.model.weights != IMAGENET or fixed.get("model.weights"):
                raise
            raise _UnreadableWeightsError(recipe.model.name, error) from error
        return trials[-1]

    def planned(place: int, timed: Timed, cost: float, left: float | None) -> Length:
        recipe = timed.recipe if cost == 1 else candidates[place].recipe
        speed = _slower(timed, cost)
        return length(
            candidates[place].images,
            # What fits into the minutes is used, as long as any row gains by it.
            candidates[place].most if left is None else max(candidate.most for candidate in candidates),
            recipe.run.batch_size,
            replace(speed, create_s=speed.create_s + found.open_s),
            work,
            left,
            calibration=calibration_images(recipe) if recipe.model.weights == IMAGENET else 0,
            fixed_steps=_fixed_steps(fixed, work.train // recipe.run.batch_size),
        )

    def fits(place: int, timed: Timed, cost: float) -> bool:
        lasts = planned(place, timed, cost, left_s())
        return lasts.seconds <= NIGHT_S if minutes is None else lasts.is_enough

    chosen, measured = search(
        [_cost(candidate) for candidate in candidates],
        measure,
        fits,
        # A trial costs making the network, and its steps.
        lambda cost: (
            clock() - first + trials[0].speed.create_s + cost * _TRIAL_IMAGES * trials[0].step_s
            <= max(timing_s, _LEAST_TRIALS * trials[0].speed.create_s)
        ),
    )
    timed = measured[chosen]
    if clock() - first + 3 * timed.recipe.run.batch_size * timed.speed.train_s <= timing_s:
        measured[chosen] = time_with_loader(timed, found.train, found.validation, timing_s / 10)
    else:
        measured[chosen] = replace(timed, speed=_slower(timed, _NOT_VERIFIED))
    left = left_s()
    lengths = {place: planned(place, timed, 1.0, left) for place, timed in measured.items()}
    lasts = lengths[chosen]
    recipe = _complete(measured[chosen].recipe, lasts, work, fixed)
    rows = [
        _row(candidate, measured.get(place), lengths.get(place), place - chosen, work)
        for place, candidate in enumerate(candidates)
    ]
    notes = _notes(recipe, work, fixed, lasts.tests, class_with_sides(found.train.class_names))
    return TrainingPlan(recipe, rows, lasts.seconds, lasts.is_enough, lasts.tests, notes)


def timing_seconds(minutes: float | None) -> float:
    """How long candidates are timed, at most, except for the first, which always is."""
    return _TIMING_S if minutes is None else min(max(_LEAST_TIMING_S, TIMING_FRACTION * 60 * minutes), _MOST_TIMING_S)


def _candidates(found: Found, fixed: Mapping[str, Any], find_weights: Callable[[str], Any]) -> list[Candidate]:
    """Those of the data, with what the user has fixed."""
    from_file = fixed.get("model.weights")
    sources: dict[str, bool] = {}

    def pretrained(name: str) -> bool:
        if from_file not in (None, IMAGENET):
            return from_file != ""
        if name not in sources:
            sources[name] = find_weights(name) is not None
        return sources[name]

    if isinstance(found.train, ClassificationDataset):
        candidates = classification_candidates(
            image_facts(found.train), pretrained, fixed.get("model.name", ""), fixed.get("images.size", 0)
        )
    else:
        has_gpu = torch.accelerator.is_available() and fixed.get("run.device") != "cpu"
        candidates = detection_candidates(
            found.train,
            DETECTORS[found.verb],
            has_gpu,
            pretrained,
            fixed.get("model.name", ""),
            fixed.get("images.size", 0),
        )
    changed: dict[Any, Candidate] = {}
    for candidate in candidates:
        recipe = with_fields(candidate.recipe, fixed)
        changed.setdefault(recipe, replace(candidate, recipe=recipe))
    return list(changed.values())


def _fixed_steps(fixed: Mapping[str, Any], per_epoch: int) -> int:
    return fixed.get("schedule.steps", 0) or fixed.get("schedule.epochs", 0) * max(1, per_epoch)


def _slower(timed: Timed, factor: float) -> Speed:
    """Of a network with so many times the arithmetic; reading stays as fast as it is."""
    if factor == 1:
        return timed.speed  # which may have been measured with its loader
    read_s = timed.read_s / max(timed.recipe.run.workers, 1)
    around_s = max(0.0, timed.speed.train_s - max(timed.step_s, read_s))  # reading on the cores of the network
    return replace(
        timed.speed,
        train_s=max(timed.step_s * factor, read_s) + around_s,
        evaluate_s=max(timed.evaluate_s * factor, read_s),
    )


def _cost(candidate: Candidate) -> float:
    recipe = candidate.recipe
    return count(find_row(recipe.model.name), recipe.images.size, 0).multiply_adds


def _complete(recipe: Any, lasts: Length, work: Work, fixed: Mapping[str, Any]) -> Any:
    """With the length of the training, and how often it is looked at."""
    per_epoch = max(1, work.train // recipe.run.batch_size)
    planned = {
        "schedule.epochs": ceil(lasts.steps / per_epoch),
        "schedule.steps": 0 if "schedule.epochs" in fixed else lasts.steps,
        "schedule.warmup_epochs": round(WARMUP * lasts.steps / per_epoch, 4),
        "run.evaluate_every": lasts.evaluate_every,
        "run.checkpoint_every": lasts.evaluate_every,
        "run.evaluation_images": lasts.evaluation_images,
    }
    return with_fields(recipe, {name: value for name, value in planned.items() if name not in fixed})


def _row(candidate: Candidate, timed: Timed | None, lasts: Length | None, behind: int, work: Work) -> PlanRow:
    """`behind`: places behind the chosen one."""
    recipe = timed.recipe if timed else candidate.recipe
    if behind == 0:
        remark = "chosen" if lasts and lasts.is_enough else "chosen, for want of time"
    elif behind > 0:
        remark = ""
    else:
        remark = "too slow"  # as timed, or by its arithmetic
    return PlanRow(
        model=recipe.model.name,
        weights=recipe.model.weights,
        px=recipe.images.size,
        batch_size=recipe.run.batch_size,
        images_per_s=round(1 / timed.speed.train_s, 1) if timed else None,
        epochs=round(lasts.steps * recipe.run.batch_size / work.train, 1) if lasts else None,
        seconds=round(lasts.seconds, 1) if lasts else None,
        chosen=behind == 0,
        remark=remark,
        why=candidate.why,
        measured=_measured(timed) if timed else {},
    )


def _measured(timed: Timed) -> dict[str, float]:
    images_s = {
        "train": timed.speed.train_s,
        "step": timed.step_s,
        "read": timed.read_s,
        "evaluate": timed.speed.evaluate_s,
    }
    return {name: round(1e3 * seconds, 2) for name, seconds in images_s.items()} | {
        "create_s": round(timed.speed.create_s, 2)
    }


def _notes(
    recipe: ClassificationRecipe | DetectionRecipe, work: Work, fixed: Mapping[str, Any], tests: bool, has_sides: str
) -> list[str]:
    notes: list[str] = []
    images = recipe.images
    if "images.hflip" not in fixed:
        notes.append(
            "half of the training images are flipped left to right; for text, digits and whatever else has a left and "
            "a right add --images.no-hflip"
            if images.hflip
            else f"the class {has_sides!r} looks otherwise in a mirror: images are not flipped (--images.hflip flips)"
        )
    if isinstance(recipe, ClassificationRecipe):
        if recipe.images.fit == "letterbox" and "images.fit" not in fixed:
            notes.append(
                "many images are at least twice as long as wide: they are shown whole (--images.fit letterbox)"
            )
        if recipe.images.balance and "images.balance" not in fixed:
            notes.append(
                f"some classes have far fewer images than others and are drawn more often (--images.balance "
                f"{recipe.images.balance:g}; 0 is off)"
            )
    if work.test and not tests:
        notes.append(
            "there is no time for the test split: botformer evaluate RUN --data DIR --split test --out RUN/test"
        )
    if recipe.run.evaluation_images:
        notes.append(
            f"each evaluation during training sees {recipe.run.evaluation_images:,} of the {work.validation:,} "
            "validation images, evenly spread"
        )
    return notes
