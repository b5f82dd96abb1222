"""Whether a run starts or continues, and whether it may."""

import json
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
    checkpoint_folder,
    folder_name,
    older_checkpoints,
    read_state,
    read_tensors,
)
from botformer.training.train_step import TrainState

Resume = Literal["auto", "never"]
RecipeT = TypeVar("RecipeT", bound=Recipe)

MAY_DIFFER = {
    "model.backend",
    "model.gradient_checkpointing",
    "model.weights",
    "images.max_bad_files",
    "images.max_bad_records",
    "images.max_megapixels",
    "run.workers",
    "run.device",
    "run.evaluate_every",
    "run.evaluation_images",
    "run.checkpoint_every",
    "run.keep",
    "run.max_steps",
    "run.trackers",
}
"""Fields a continued run may change: they are of the machine, of the record or of how often, not of the result. The
first weights have been read when a run continues."""

TRACES = (LAST, "checkpoints", "recipe.json", "metrics.jsonl")
"""Names that show that a folder holds a run."""


def find_start(out: Path, recipe: Recipe, resume: Resume) -> tuple[Path, State] | None:
    """The checkpoint to continue from; None to start. Writes nothing.

    Raises `InputError` when `out` holds a run that must not be touched: any run for "never", one of another recipe or
    a broken one for "auto".
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; the output of a run needs a folder")
    if printable(os.path.realpath(out)) != os.path.realpath(out):
        raise InputError(
            f"the name of the folder {printable(os.path.realpath(out))} is not UTF-8 (or holds control characters), "
            "and safetensors cannot write into it; choose another --out"
        )
    if resume == "never":
        traces = [name for name in TRACES if (out / name).exists()]
        if traces:
            raise InputError(
                f"{out} holds a run already ({', '.join(traces)}); choose another --out, or continue with --resume auto"
            )
        return None
    folder = checkpoint_folder(out)
    if folder is None:
        return None
    try:
        state = read_state(folder)
    except InputError as error:
        raise InputError(f"{error}. {older_checkpoints(out, than=folder)}") from error
    _check_same_recipe(out, state.recipe, recipe)
    best = out / "checkpoints" / folder_name(state.best_step)
    if state.best_step and not best.is_dir():  # somebody went back to a checkpoint whose best is gone
        state.best_step, state.best_value = 0, None
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


def restore(train_state: TrainState, out: Path, start: tuple[Path, State]) -> None:
    """Load a checkpoint's weights and optimiser state. Raises `InputError` when a file is broken or of another run."""
    folder, state = start
    _check_same_model_config(out, state.model_config, train_state.task.model_config())
    try:
        train_state.load(read_tensors(folder, state))
    except InputError as error:
        raise InputError(f"cannot resume from {folder}: {error}. {older_checkpoints(out, than=folder)}") from error


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


def _check_same_recipe(out: Path, saved: dict[str, Any], recipe: Recipe) -> None:
    now = flat(as_json(recipe))
    before = flat(as_json(type(recipe)())) | flat(saved)  # a field that is newer than the run had its default value
    names = sorted((now.keys() | before.keys()) - MAY_DIFFER)
    gone = "no such field"
    differences = [
        f"{name}: {before.get(name, gone)} there, {now.get(name, gone)} now"
        for name in names
        if now.get(name, gone) != before.get(name, gone)
    ]
    if differences:
        raise InputError(
            f"{out} holds a run of a different recipe ({'; '.join(differences)}); choose another --out, "
            "or give the same settings to continue it"
        )


def as_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as it reads after a trip through JSON (tuples are lists)."""
    return json.loads(json.dumps(asdict(recipe)))
