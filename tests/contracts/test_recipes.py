"""Every recipe resolves: its network builds, its fields exist, and what is ours is marked as such."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from botformer.create import create_classification_task
from botformer.data.transforms import evaluation_transform, training_transform
from botformer.errors import InputError
from botformer.recipes import RECIPES, find_recipe
from botformer.training.plan import make_plan


def has_field(recipe, name):
    owner = recipe
    for part in name.split("."):
        if not is_dataclass(owner) or part not in {field.name for field in fields(owner)}:
            return False
        owner = getattr(owner, part)
    return True


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves(name):
    recipe = RECIPES[name]
    with torch.device("meta"):
        task = create_classification_task(recipe, [str(n) for n in range(10)])
    assert task.card()["image_size"] == recipe.images.size
    assert task.no_weight_decay() <= {name for name, _ in task.named_parameters()}
    training_transform(recipe.images), evaluation_transform(recipe.images)
    assert make_plan(recipe, steps_per_epoch=100).steps == 100 * recipe.schedule.epochs
    assert recipe.source
    assert recipe.expect
    assert recipe.cost
    assert all(has_field(recipe, field) for field in recipe.ours)


def test_what_the_paper_gives_stands_in_the_rows():
    hundred, two_hundred = RECIPES["imagenet_botnet50_100"], RECIPES["imagenet_botnet50_200"]
    assert (hundred.run.batch_size, hundred.optimizer.weight_decay, hundred.schedule.epochs) == (1024, 1e-4, 100)
    assert (two_hundred.run.batch_size, two_hundred.optimizer.weight_decay) == (4096, 8e-5)
    assert (two_hundred.images.rand_augment_layers, two_hundred.images.rand_augment_magnitude) == (2, 10)
    assert two_hundred.optimizer.label_smoothing == 0.1
    sizes = {
        name: RECIPES[f"imagenet_botnet_{name}_350"].images.size for name in ("t3", "t4", "t5", "t6", "t7_320", "t7")
    }
    assert sizes == {"t3": 224, "t4": 224, "t5": 256, "t6": 320, "t7_320": 320, "t7": 384}
    assert "model.drop_path" in RECIPES["imagenet_botnet_t3_350"].ours


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean imagenet_botnet50_200 or imagenet_botnet50_100"):
        find_recipe("imagenet_botnet50")
