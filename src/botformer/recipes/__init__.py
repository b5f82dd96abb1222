"""Recipes: one row of data per published experiment. Standard library only."""

from botformer.errors import unknown
from botformer.recipes import cifar10, coco, demo, half_width, imagenet, nuclei
from botformer.recipes.experiment import Experiment
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe

EXPERIMENTS: dict[str, Experiment] = {
    row.name: row
    for table in (demo, nuclei, half_width, cifar10, imagenet, coco)
    for row in table.EXPERIMENTS
}  # fmt: skip
"""Name -> row, of every experiment that comes with botformer."""


def find_experiment(name: str) -> Experiment:
    """The row called `name`.

    Raises:
        InputError: an unknown name; the nearest is suggested.
    """
    if name not in EXPERIMENTS:
        raise unknown("recipe", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def find_recipe(name: str) -> ClassificationRecipe | DetectionRecipe:
    """The recipe of the row called `name`.

    Raises:
        InputError: an unknown name; the nearest is suggested.
    """
    return find_experiment(name).recipe
