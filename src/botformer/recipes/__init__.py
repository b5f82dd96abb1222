"""Recipes: one row of data a published experiment. Standard library only."""

from botformer.errors import unknown
from botformer.recipes import cifar10, demo, imagenet
from botformer.recipes.schema import Recipe

RECIPES: dict[str, Recipe] = {**demo.RECIPES, **cifar10.RECIPES, **imagenet.RECIPES}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`; an unknown name suggests the nearest (`InputError`)."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
