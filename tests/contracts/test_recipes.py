"""Every recipe resolves: its network builds, its fields exist, and what is ours is marked as such."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from botformer.create import create_classification_task, create_detection_task
from botformer.data.classification.transforms import evaluation_transform, training_transform
from botformer.errors import InputError
from botformer.recipes import RECIPES, find_recipe
from botformer.recipes.check import RANGES, check
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.training.schedule import learning_rate, make_plan, peak_learning_rate


def has_field(recipe, name):
    matched_idx = recipe
    for part in name.split("."):
        if not is_dataclass(matched_idx) or part not in {field.name for field in fields(matched_idx)}:
            return False
        matched_idx = getattr(matched_idx, part)
    return True


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves(name):
    recipe = RECIPES[name]
    check(recipe)
    with torch.device("meta"):
        if isinstance(recipe, DetectionRecipe):
            task = create_detection_task(recipe, [(n, str(n)) for n in range(1, 11)])
        else:
            task = create_classification_task(recipe, [str(n) for n in range(10)])
            training_transform(recipe.images), evaluation_transform(recipe.images)
    assert task.model_config()["image_size"] == recipe.images.size
    assert task.no_weight_decay() <= {name for name, _ in task.named_parameters()}
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


def test_every_line_of_the_papers_coco_tables_is_a_row():
    """paper.md 5: schedules, jitter, size, depth, position and Non-Local; box and mask AP as printed."""
    printed = {
        ("resnet50", 12): "39.0 / 35.0", ("botnet50", 12): "39.4 / 35.3", ("resnet50", 24): "41.2 / 36.9",
        ("botnet50", 24): "42.8 / 38.0", ("resnet50", 36): "42.1 / 37.7", ("botnet50", 36): "43.6 / 38.9",
        ("resnet50", 72): "42.8 / 37.9", ("botnet50", 72): "43.7 / 38.7", ("resnet101", 36): "43.3 / 38.4",
        ("botnet101", 36): "45.5 / 40.4", ("resnet152", 36): "44.2 / 39.1", ("botnet152", 36): "46.0 / 40.6",
    }  # fmt: skip
    for (model, epochs), figures in printed.items():
        recipe = RECIPES[f"coco_{model}_{epochs}"]
        assert (recipe.model.name, recipe.schedule.epochs) == (model, epochs)
        assert (recipe.images.size, recipe.images.scale_jitter) == (1024, (0.8, 1.25))
        assert figures in recipe.expect
    best = RECIPES["coco_botnet200_72_1280"]
    assert (best.images.size, best.images.scale_jitter, best.model.gradient_checkpointing) == (1280, (0.1, 2.0), True)
    assert "49.7 / 44.4" in best.expect
    positions = {RECIPES[f"coco_botnet50_36{end}"].model.position for end in ("", "_no_position", "_absolute")}
    assert positions == {"relative", "none", "absolute"}


def test_the_coco_schedule_is_the_code_bases():
    recipe = RECIPES["coco_botnet50_12"]
    steps_per_epoch = 118_287 // 64
    steps = 12 * steps_per_epoch
    peak = peak_learning_rate(recipe.optimizer, recipe.run.batch_size)

    def rate(step):
        return learning_rate(step, steps, recipe.schedule, steps_per_epoch, peak)

    assert rate(0) == pytest.approx(0.0067)
    assert rate(499) < rate(500) == peak == 0.08
    assert rate(round(steps * 2 / 3) - 1) == 0.08
    assert rate(round(steps * 2 / 3)) == pytest.approx(0.008)
    assert rate(round(steps * 8 / 9)) == pytest.approx(0.0008)
    assert peak_learning_rate(recipe.optimizer, 16) == pytest.approx(0.02)


def test_every_range_belongs_to_a_field():
    recipes = ClassificationRecipe(), DetectionRecipe()
    assert all(any(has_field(recipe, name) for recipe in recipes) for name in RANGES)


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean imagenet_botnet50_200 or imagenet_botnet50_100"):
        find_recipe("imagenet_botnet50")
