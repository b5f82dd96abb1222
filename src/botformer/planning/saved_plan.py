"""plan.json of a run: what was found, what was measured, what was chosen. A run that is there is continued by it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from botformer import stored_names
from botformer.atomic_write import write_json
from botformer.errors import InputError
from botformer.planning.look_at_data import Found, Verb
from botformer.planning.plan import TrainingPlan
from botformer.read_file import read_json, understood
from botformer.recipes.from_json import recipe_from_json
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.training.resume import with_saved_length

PLAN = "plan.json"
_ADVICE = "choose another --out, or delete the folder to start anew"


def write_plan(
    out: Path, plan: TrainingPlan, found: Found, minutes: float | None, data: str, command: str, expected_end: str
) -> None:
    """`expected_end`: as a time of day with its date."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / PLAN,
        {
            "command": command,
            "verb": found.verb,
            "data": data,
            "found": found.summary,
            "minutes": minutes,
            "expected_seconds": round(plan.seconds, 1),
            "expected_end": expected_end,
            "candidates": [asdict(row) for row in plan.rows],
            "notes": plan.notes,
            "tests": plan.tests,
            "recipe": asdict(plan.recipe),
        },
    )


def tests_at_the_end(out: Path) -> bool:
    """Whether the plan in `out` has time for the test split."""
    return bool(_read(out).get("tests", True))


def saved_recipe(out: Path, verb: Verb, minutes: float | None) -> ClassificationRecipe | DetectionRecipe | None:
    """The recipe of the planned run in `out`, of the length that it has by now; None where there is none.

    Raises:
        InputError: the run there was not planned, has another verb or other minutes, or its plan cannot be read.
    """
    if not (out / "recipe.json").is_file():
        return None  # nothing there, or a plan whose training never began
    if not (out / PLAN).is_file():
        raise InputError(
            f"{out} holds a run that was not planned ({PLAN} is missing); continue it by the name of its recipe, "
            "botformer train RECIPE, or choose another --out"
        )
    saved = _read(out)
    with understood(out / PLAN, _ADVICE):
        before = {"verb": saved["verb"], "minutes": saved["minutes"]}
        content = stored_names.recipe(saved["recipe"])
        if before["minutes"] is not None and type(before["minutes"]) not in (int, float):
            raise TypeError(f"minutes is {before['minutes']!r:.80}")
    if before["verb"] != verb:
        raise InputError(f"{out} holds a run of `train {before['verb']}`, not {verb}; choose another --out")
    if minutes is not None and minutes != before["minutes"]:
        planned = "without minutes" if before["minutes"] is None else f"for {before['minutes']:g} minutes"
        raise InputError(
            f"{out} holds a run that was planned {planned}, and its steps are fixed; leave --minutes out to continue "
            "it, or choose another --out to plan anew"
        )
    recipe = recipe_from_json(ClassificationRecipe if verb == "classify" else DetectionRecipe, content)
    return with_saved_length(recipe, out)


def _read(out: Path) -> dict[str, Any]:
    try:
        saved = read_json(out / PLAN)
    except (OSError, ValueError) as error:
        raise InputError(f"{out / PLAN} cannot be read ({error}); {_ADVICE}") from error
    if not isinstance(saved, dict):
        raise InputError(f"{out / PLAN} holds a {type(saved).__name__}, not a plan; {_ADVICE}")
    return saved
