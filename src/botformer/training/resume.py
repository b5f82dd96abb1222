"""Whether a run starts or continues, and whether it may."""

import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from botformer.errors import InputError
from botformer.read_file import read_json
from botformer.recipes.from_json import flat
from botformer.recipes.schema import Recipe
from botformer.text import printable
from botformer.training.checkpoint import (
    LAST,
    State,
    check_files,
    checkpoint_folder,
    folder_name,
    newest_intact,
    older_checkpoints,
    read_state,
    read_tensors,
)
from botformer.training.train_step import TrainState

log = logging.getLogger("botformer.training")

Resume = Literal["auto", "never", "previous"]
RecipeT = TypeVar("RecipeT", bound=Recipe)

MAY_DIFFER = {
    "model.backend",
    "model.gradient_checkpointing",
    "model.weights",
    "images.max_bad_files",
    "images.max_bad_records",
    "images.max_megapixels",
    "run.accumulation",
    "run.workers",
    "run.device",
    "run.evaluate_every",
    "run.evaluation_images",
    "run.checkpoint_every",
    "run.checkpoint_every_steps",
    "run.checkpoint_every_minutes",
    "run.keep",
    "run.max_steps",
    "run.trackers",
}
"""Fields a continued run may change: they are of the machine, of the record or of how often, not of the result. The
first weights have been read when a run continues. Accumulation changes what BatchNorm sees, and the run says so."""

LENGTH = {"schedule.epochs", "schedule.steps"}
"""Fields that `extend` may change as well."""

TRACES = (LAST, "checkpoints", "recipe.json", "metrics.jsonl")
"""Names that show that a folder holds a run."""


def find_start(out: Path, recipe: Recipe, resume: Resume, extend: bool = False) -> tuple[Path, State] | None:
    """The checkpoint to continue from, which is as it was written; None to start. Writes nothing.

    "previous" is "auto" where the last checkpoint is intact, and else takes the newest one before it that is. With
    `extend` the schedule may have another length than the run began with.

    Raises `InputError` when `out` holds a run that must not be touched: any run for "never", else one of another recipe
    or a damaged one.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; the output of a run needs a folder")
    if printable(os.path.realpath(out)) != os.path.realpath(out):
        raise InputError(
            f"the name of the folder {printable(os.path.realpath(out))} is not UTF-8 (or holds control characters), "
            "and safetensors cannot write into it; choose another --out"
        )
    if resume == "never":
        traces = [name for name in TRACES if (out / name).is_file() or _is_filled(out / name)]
        if traces:
            raise InputError(
                f"{out} holds a run already ({', '.join(traces)}); choose another --out, or continue with --resume auto"
            )
        return None
    try:
        start = _last(out)
    except InputError as error:
        intact = newest_intact(out) if resume == "previous" else None
        if intact is None:
            raise
        log.warning("%s", error)
        log.warning("continuing from the checkpoint before it, %s", intact.name)
        start = intact, read_state(intact)
    if start is None:
        return None
    _, state = start
    _check_same_recipe(out, state.recipe, recipe, extend)
    best = out / "checkpoints" / folder_name(state.best_step)
    if state.best_step and not best.is_dir():  # somebody went back to a checkpoint whose best is gone
        state.best_step, state.best_value = 0, None
    return start


def _is_filled(folder: Path) -> bool:
    """A run that was killed where it had made the folder, but nothing in it, had not begun."""
    return folder.is_dir() and any(folder.iterdir())


def _last(out: Path) -> tuple[Path, State] | None:
    """Raises `InputError` where it is damaged, with what to do."""
    folder = checkpoint_folder(out)
    if folder is None:
        return None
    try:
        state = read_state(folder)
        check_files(folder, state)
    except InputError as error:
        raise InputError(f"{error}. {older_checkpoints(out, than=folder)}") from error
    return folder, state


def with_saved_precision(recipe: RecipeT, out: Path) -> RecipeT:
    """The recipe with the precision of the run in `out`, where it leaves the choice to the machine: a run goes on as it
    began, whatever is measured today."""
    if recipe.run.precision != "auto":
        return recipe
    try:
        saved = read_json(out / "recipe.json")["run"]["precision"]
        return replace(recipe, run=replace(recipe.run, precision=saved))
    except (OSError, ValueError, KeyError, TypeError):  # no run there, or one that `find_start` will complain of
        return recipe


def with_saved_length(recipe: RecipeT, out: Path) -> RecipeT:
    """The recipe of the length to which the run in `out` may have been extended."""
    try:
        schedule = read_json(out / "recipe.json")["schedule"]
        fields = [name.removeprefix("schedule.") for name in LENGTH]
        return replace(recipe, schedule=replace(recipe.schedule, **{name: schedule[name] for name in fields}))
    except (OSError, ValueError, KeyError, TypeError, InputError):  # `find_start` will complain of it
        return recipe


def restore(train_state: TrainState, out: Path, start: tuple[Path, State], data: dict[str, Any]) -> None:
    """Load a checkpoint's weights and optimiser state. Raises `InputError` when a file is damaged or of another run, or
    the `data` are others."""
    folder, state = start
    _check_same_model_config(out, state.model_config, train_state.task.model_config())
    _check_same_data(out, state.data, data)
    try:
        train_state.load(read_tensors(folder, state))
    except InputError as error:
        raise InputError(f"cannot resume from {folder}: {error}. {older_checkpoints(out, than=folder)}") from error


def _check_same_data(out: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises `InputError` where the training data are not those that the run began with. Runs of older versions do not
    say."""
    for what in saved.keys() & now.keys():
        if saved[what] != now[what]:
            raise InputError(
                f"{out} holds a run on other data: {_difference(saved, now)}; give the data the run began with, or "
                f"start another run from its weights: --model.weights {out} with another --out"
            )


def _difference(saved: dict[str, Any], now: dict[str, Any]) -> str:
    if saved.get("images") != now.get("images"):
        return f"it began with {saved.get('images')} training images, now there are {now.get('images')}"
    if saved.get("names_sha256") != now.get("names_sha256"):
        return f"there are {now.get('images')} training images as before, but some have other names"
    return "the images are the same, but their labels or boxes have changed (or outlines, or key points)"


def _check_same_model_config(out: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """With one recipe only the data can make a difference: other classes, in another order.

    Options are left to `_check_same_recipe`, which knows which may differ and which are newer than the run.
    """
    now = json.loads(json.dumps(now))
    for name in sorted(saved.keys() & now.keys() - {"images", "options", "settings"}):
        if saved[name] != now[name]:
            raise InputError(
                f"{out} holds a run on other data: its {name} are {str(saved[name])[:200]}, those of this data "
                f"{str(now[name])[:200]}; choose another --out, or give the data the run began with"
            )


def _check_same_recipe(out: Path, saved: dict[str, Any], recipe: Recipe, extend: bool) -> None:
    now = flat(as_json(recipe))
    before = flat(as_json(type(recipe)())) | flat(saved)  # a field that is newer than the run had its default value
    gone = "no such field"
    may_differ = MAY_DIFFER | LENGTH if extend else MAY_DIFFER
    different = [
        name
        for name in sorted((now.keys() | before.keys()) - may_differ)
        if now.get(name, gone) != before.get(name, gone)
    ]
    if not different:
        return
    listed = "; ".join(f"{name}: {before.get(name, gone)} there, {now.get(name, gone)} now" for name in different)
    advice = "choose another --out, or give the same settings to continue it"
    if LENGTH.issuperset(different):
        advice += "; to train this one longer, or shorter, add --extend"
    raise InputError(f"{out} holds a run of a different recipe ({listed}); {advice}")


def as_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as it reads after a trip through JSON (tuples are lists)."""
    return json.loads(json.dumps(asdict(recipe)))
