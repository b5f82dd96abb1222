"""Recipes: one row of data a published experiment. Standard library only."""

from botformer.errors import unknown
from botformer.recipes import cifar10, coco, demo, imagenet, nuclei
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe

RECIPES: dict[str, ClassificationRecipe | DetectionRecipe] = {
    **demo.RECIPES,
    **nuclei.RECIPES,
    **cifar10.RECIPES,
    **imagenet.RECIPES,
    **coco.RECIPES,
}


def find_recipe(name: str) -> ClassificationRecipe | DetectionRecipe:
    """The recipe called `name`; an unknown name suggests the nearest (`InputError`)."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
