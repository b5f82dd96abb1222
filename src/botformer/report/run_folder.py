"""What the folder of a run holds, whatever is there of it: recipe, plan, journal, checkpoint, evaluations."""

import filecmp
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from botformer import stored_names
from botformer.create.from_checkpoint import weights_file
from botformer.errors import InputError
from botformer.planning.saved_plan import PLAN
from botformer.read_file import read_json
from botformer.recipes.from_json import recipe_from_json
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.training.run_log import Record, read_metrics

EVALUATION = "evaluation"
"""Folder in a run of what `botformer evaluate` writes."""


@dataclass(frozen=True)
class RunFolder:
    out: Path

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Of recipe.json. Raises InputError where there is none, so that this is no run, or a damaged one."""
        found = _json(self.out / "recipe.json")
        if not isinstance(found, dict) or "schedule" not in found:
            raise InputError(
                f"{self.out} holds no run (recipe.json is missing or no recipe); expected the --out folder of "
                "botformer train"
            )
        recipe = stored_names.recipe(found)
        try:
            recipe_from_json(DetectionRecipe if "detector" in recipe else ClassificationRecipe, recipe)
        except InputError as error:
            raise InputError(f"{self.out / 'recipe.json'} is damaged, or of a newer version: {error}") from error
        return recipe

    @cached_property
    def plan(self) -> dict[str, Any]:
        """Of plan.json; empty where the run was not planned."""
        found = _json(self.out / PLAN)
        return found if isinstance(found, dict) else {}

    @cached_property
    def versions(self) -> dict[str, str]:
        found = _json(self.out / "versions.json")
        return found if isinstance(found, dict) else {}

    @cached_property
    def journal(self) -> list[Record]:
        """Empty where there is none yet."""
        try:
            return read_metrics(self.out / "metrics.jsonl")
        except InputError:
            return []

    @property
    def is_detection(self) -> bool:
        return "detector" in self.recipe

    @property
    def has_checkpoint(self) -> bool:
        try:
            return Path(weights_file(self.out)).is_file()
        except InputError:
            return False

    @property
    def epochs_done(self) -> float:
        return max((record["epoch"] for record in self.journal), default=0.0)

    @property
    def epochs_planned(self) -> float:
        """With a fraction where the schedule counts steps and the journal tells how many an epoch has."""
        last = max(self.journal, key=lambda record: record["step"], default=None)
        if self._steps_planned and last and last["step"]:
            return self._steps_planned * last["epoch"] / last["step"]
        return float(self.recipe["schedule"]["epochs"])

    @property
    def finished(self) -> bool:
        if self._steps_planned:
            return max((record["step"] for record in self.journal), default=0) >= self._steps_planned
        return self.epochs_done > self.epochs_planned - 0.01

    @property
    def _steps_planned(self) -> int:
        """0: the schedule counts epochs."""
        return self.recipe["schedule"].get("steps", 0)

    @property
    def images_per_s(self) -> float | None:
        """In training: the median over the steps, the first of which takes longer."""
        speeds = [record["images_per_s"] for record in self._steps if record.get("images_per_s")]
        return median(speeds) if speeds else None

    @property
    def training_s(self) -> float | None:
        """The steps together, without evaluations and checkpoints."""
        if not self.images_per_s or not self._steps:
            return None
        return self._steps[-1]["step"] * self.recipe["run"]["batch_size"] / self.images_per_s

    @property
    def memory_mb(self) -> float | None:
        known = [record["memory_mb"] for record in self._steps if record.get("memory_mb")]
        return max(known) if known else None

    @property
    def _steps(self) -> list[Record]:
        return [record for record in self.journal if record["kind"] == "train"]

    def evaluation(self, folder: str = EVALUATION) -> dict[str, Any] | None:
        """What metrics.json of an evaluation of the run's best weights holds; None where it is of others, or none."""
        found = _json(self.out / folder / "metrics.json")
        if not isinstance(found, dict) or not self.has_checkpoint:
            return None
        return found if self._are_best(str(found.get("weights"))) else None

    def _are_best(self, weights: str) -> bool:
        """Whether a path is that of the best weights, however the run's folder was named, or called before it moved."""
        best, said = weights_file(self.out), Path(weights)
        below = Path(os.path.relpath(best, self.out)).parts
        return said.parts[-len(below) :] == below and (not said.exists() or filecmp.cmp(said, best, shallow=False))

    def predictions(self, folder: str = EVALUATION) -> list[Any]:
        found = _json(self.out / folder / "predictions.json")
        return found if isinstance(found, list) else []


def _json(file: Path) -> Any:
    """None where it cannot be read."""
    try:
        return read_json(file)
    except (OSError, ValueError):
        return None
