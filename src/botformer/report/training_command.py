"""The command that trains a recipe again: the nearest row of the recipes, and the options that differ from it."""

import shlex
from typing import Any

from botformer.recipes import EXPERIMENTS
from botformer.recipes.from_json import flat
from botformer.recipes.schema import DetectionRecipe
from botformer.training.resume import as_json


def training_command(recipe: dict[str, Any], data: str, out: str) -> str:
    """`recipe`: what recipe.json holds. Fields that no row has, of other versions, are left out."""
    detection = "detector" in recipe
    wanted = flat(recipe)
    differences = {}
    for name, row in EXPERIMENTS.items():
        if isinstance(row.recipe, DetectionRecipe) == detection:
            known = flat(as_json(row.recipe))
            differences[name] = {
                field: value for field, value in wanted.items() if field in known and known[field] != value
            }
    nearest = min(differences, key=lambda name: len(differences[name]))
    options = [word for field, value in differences[nearest].items() for word in _option(field, value)]
    return shlex.join(["botformer", "train", nearest, "--data", data, "--out", out, *options])


def _option(field: str, value: Any) -> list[str]:
    group, dot, name = field.rpartition(".")
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{group}{dot}{'' if value else 'no-'}{name}"]
    return [f"--{group}{dot}{name}", *_words(value)]


def _words(value: Any) -> list[str]:
    return [word for each in value for word in _words(each)] if isinstance(value, list | tuple) else [str(value)]
