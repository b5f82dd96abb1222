"""Every row resolves, says where it comes from, how to run it, what to expect and what it cost; its fields exist."""

import json
import math
import re
import shlex
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch

from botformer import cli
from botformer.backbone.variants import find_row
from botformer.create import create_classification_task, create_detection_task, create_model, train_recipe
from botformer.data.classification.transforms import evaluation_transform, training_transform
from botformer.errors import InputError
from botformer.recipes import EXPERIMENTS, find_experiment, find_recipe
from botformer.recipes.check import RANGES
from botformer.recipes.detector_settings import Settings, make_settings
from botformer.recipes.model_options import ModelOptions
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, DetectionRecipe, Model, Optimizer
from botformer.training.schedule import learning_rate, make_plan, peak_learning_rate

RESULTS = Path(__file__).parents[2] / "results"
# What is known of the paper's tables: nothing else may stand in a row.
SECTION_OF_TABLE = {
    "Table 2": "4.1",
    "Table 3": "4.2",
    "Table 4": "4.3",
    "Table 8": "4.5",
}
SECTIONS_WITHOUT = ("4.4", "4.6", "4.7")


def has_field(recipe, name):
    part_of_it = recipe
    for part in name.split("."):
        if not is_dataclass(part_of_it) or part not in {field.name for field in fields(part_of_it)}:
            return False
        part_of_it = getattr(part_of_it, part)
    return True


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_recipe_resolves(name):
    recipe = find_recipe(name)
    with torch.device("meta"):
        if isinstance(recipe, DetectionRecipe):
            task = create_detection_task(recipe, [(n, str(n)) for n in range(1, 11)])
        else:
            task = create_classification_task(recipe, [str(n) for n in range(10)])
            training_transform(recipe.images), evaluation_transform(recipe.images)
    assert task.model_config()["image_size"] == recipe.images.size
    assert task.no_weight_decay() <= {name for name, _ in task.named_parameters()}
    assert make_plan(recipe, steps_per_epoch=100).steps == 100 * recipe.schedule.epochs


def test_no_two_rows_have_one_name():
    from botformer.recipes import cifar10, coco, demo, half_width, imagenet, nuclei

    assert sum(len(table.EXPERIMENTS) for table in (cifar10, coco, demo, half_width, imagenet, nuclei)) == len(
        EXPERIMENTS
    )


@pytest.mark.parametrize("row", EXPERIMENTS.values(), ids=lambda row: row.name)
def test_a_row_says_where_it_comes_from(row):
    assert row.source
    assert all(has_field(row.recipe, field) for field in row.ours)
    if row.paper == "not in the paper":
        assert row.source.startswith("ours")
        assert set(row.ours) >= {"model", "images", "optimizer", "schedule", "run"}
        return
    assert row.source.startswith("paper, ")
    table, section = re.fullmatch(r"(Table \d|table number unknown), section (4\.\d)", row.paper).groups()
    assert SECTION_OF_TABLE.get(table) == section or (table == "table number unknown" and section in SECTIONS_WITHOUT)


@pytest.mark.parametrize("row", EXPERIMENTS.values(), ids=lambda row: row.name)
def test_a_row_says_what_to_expect_and_what_it_cost(row):
    """A measured cost has its receipt, and the seconds and steps in it are the receipt's; no other numbers of them."""
    assert re.search(r"\d", row.expect) or row.expect == "the paper gives no absolute figure"
    assert row.expect.startswith("paper: ") <= (row.paper != "not in the paper")
    if row.cost == "not run":
        assert not row.receipt
        return
    receipt = json.loads((RESULTS / f"{row.receipt}.json").read_text(encoding="utf-8"))
    assert f"{receipt['hardware']['cores']} CPU cores" in row.cost
    figures = receipt["figures"]
    seconds, steps = re.search(r"(\d+) s\b", row.cost), re.search(r"(\d+) steps", row.cost)
    assert seconds or "the time was not recorded" in row.cost
    if row.receipt.startswith("evidence_"):  # many trainings
        of_row = f"botformer train {row.name} "
        runs = [
            run for run in figures if run.get("command", "").startswith(of_row) and "schedule" not in run["command"]
        ]
        taken = [run["seconds"] for run in runs]
        assert row.cost.startswith(f"{min(taken)} to {max(taken)} s ")
    elif seconds:
        assert int(seconds[1]) == round(figures.get("training_seconds", figures["wall_seconds"]))
    if steps:
        runs = figures if isinstance(figures, list) else [{"steps": figures["training_steps"]}]
        assert int(steps[1]) in {run.get("steps") for run in runs}


@pytest.mark.parametrize("row", [row for row in EXPERIMENTS.values() if row.receipt], ids=lambda row: row.name)
def test_a_row_expects_what_its_receipt_measured(row):
    figures = json.loads((RESULTS / f"{row.receipt}.json").read_text(encoding="utf-8"))["figures"]
    metric, number, percent = re.match(r"(mask AP50|mask AP|)\s*([\d.]+)( % top-1)?", row.expect).groups()
    if isinstance(figures, dict):
        measured = [figures[key] for key in figures if key.replace("/", " ").endswith(metric or "top1")]
    elif "arm" in figures[0]:
        means = [each for each in figures if each.get("seed") == "mean"]
        measured = [each.get("mask_AP", each.get("top1")) / 100 for each in means]
        scale = 100 if percent else 1
        assert set(re.findall(r"\d+\.\d+", row.expect)) <= {
            f"{value * scale:.{1 if percent else 3}f}" for value in measured
        }
    elif "predictor" in figures[0]:
        rows = [each for each in figures if each["predictor"] == row.recipe.model.name]
        assert "the mean of three seeds" in row.expect
        assert sum(type(each["seed"]) is int for each in rows) == 3
        measured = [each["mask AP"] for each in rows if each["seed"] == "mean"]
    else:
        measured = [each["AP"] for each in figures if each["what"] == "mask"]
    digits = len(number.partition(".")[2])
    assert number in {f"{value * (100 if percent else 1):.{digits}f}" for value in measured}


@pytest.mark.parametrize("row", EXPERIMENTS.values(), ids=lambda row: row.name)
def test_the_command_of_a_row_trains_it(row, monkeypatch):
    """The command as it stands: its recipe is the row's, apart from the first weights that it names."""
    called = []
    monkeypatch.setattr(train_recipe, "train_recipe", lambda *given: called.append(given))
    program, verb, name, *arguments = shlex.split(row.command)
    assert (program, verb, name) == ("botformer", "train", row.name)
    assert cli.main([verb, name, *arguments]) == 0
    ((recipe, data, out, *resume),) = called
    assert (data, out, resume) == ("DIR", Path("runs") / row.name, ["auto", False])
    assert replace(recipe, model=replace(recipe.model, weights="")) == row.recipe
    if row.name.startswith("coco_"):  # the ImageNet weights of the ResNet that the network differs from in few layers
        blocks = find_row(recipe.model.weights.removesuffix(".pth")).blocks
        assert find_row(recipe.model.name).blocks == blocks


def test_the_list_of_recipes_and_the_help_of_one_show_their_rows(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit):
        cli.main(["train"])
    lines = capsys.readouterr().out.splitlines()
    for row in EXPERIMENTS.values():
        (line,) = [line for line in lines if line.split()[:1] == [row.name]]
        assert all(words in line for words in (row.paper, row.expect, row.cost, row.receipt))
    with pytest.raises(SystemExit):
        cli.main(["train", "coco_botnet50_36", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "`botformer train coco_botnet50_36 --data DIR --model.weights resnet50.pth`" in printed
    assert "Table 2, section 4.1" in printed


def test_what_the_paper_gives_stands_in_the_rows():
    hundred, two_hundred = find_recipe("imagenet_botnet50_100"), find_recipe("imagenet_botnet50_200")
    assert (hundred.run.batch_size, hundred.optimizer.weight_decay, hundred.schedule.epochs) == (1024, 1e-4, 100)
    assert (two_hundred.run.batch_size, two_hundred.optimizer.weight_decay) == (4096, 8e-5)
    assert (two_hundred.images.rand_augment_layers, two_hundred.images.rand_augment_magnitude) == (2, 10)
    assert two_hundred.optimizer.label_smoothing == 0.1
    sizes = {
        name: find_recipe(f"imagenet_botnet_{name}_350").images.size
        for name in ("t3", "t4", "t5", "t6", "t7_320", "t7")
    }
    assert sizes == {"t3": 224, "t4": 224, "t5": 256, "t6": 320, "t7_320": 320, "t7": 384}
    assert "model.drop_path" in find_experiment("imagenet_botnet_t3_350").ours


def test_every_line_of_the_papers_coco_tables_is_a_row():
    """paper.md 5: schedules, jitter, size, depth, position and Non-Local; box and mask AP as printed."""
    printed = {
        ("resnet50", 12): "39.0 / 35.0", ("botnet50", 12): "39.4 / 35.3", ("resnet50", 24): "41.2 / 36.9",
        ("botnet50", 24): "42.8 / 38.0", ("resnet50", 36): "42.1 / 37.7", ("botnet50", 36): "43.6 / 38.9",
        ("resnet50", 72): "42.8 / 37.9", ("botnet50", 72): "43.7 / 38.7", ("resnet101", 36): "43.3 / 38.4",
        ("botnet101", 36): "45.5 / 40.4", ("resnet152", 36): "44.2 / 39.1", ("botnet152", 36): "46.0 / 40.6",
    }  # fmt: skip
    for (model, epochs), figures in printed.items():
        row = find_experiment(f"coco_{model}_{epochs}")
        recipe = row.recipe
        assert (recipe.model.name, recipe.schedule.epochs) == (model, epochs)
        assert (recipe.images.size, recipe.images.scale_jitter) == (1024, (0.8, 1.25))
        assert figures in row.expect
    best = find_recipe("coco_botnet200_72_1280")
    assert (best.images.size, best.images.scale_jitter, best.model.gradient_checkpointing) == (1280, (0.1, 2.0), True)
    assert "49.7 / 44.4" in find_experiment("coco_botnet200_72_1280").expect
    positions = {find_recipe(f"coco_botnet50_36{end}").model.position for end in ("", "_no_position", "_absolute")}
    assert positions == {"relative", "none", "absolute"}


def test_the_coco_schedule_is_the_code_bases():
    recipe = find_recipe("coco_botnet50_12")
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


def test_every_number_has_a_range_and_every_range_a_field():
    recipes = ClassificationRecipe(), DetectionRecipe()
    assert all(any(has_field(recipe, name) for recipe in recipes) for name in RANGES)
    numbers = {
        f"{group.name}.{field.name}"
        for recipe in recipes
        for group in fields(recipe)
        if is_dataclass(options := getattr(recipe, group.name))
        for field in fields(options)
        if field.type in (int, float, float | None) or "tuple[float" in str(field.type)
    }
    assert numbers - RANGES.keys() == {"model.heads"}  # the attention checks its heads


@pytest.mark.parametrize(
    "recipe", [ClassificationRecipe(), DetectionRecipe()], ids=lambda recipe: type(recipe).__name__
)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 10**400, -(10**400)], ids=lambda value: f"{value}"[:9]
)
def test_no_field_takes_a_number_that_is_not_finite(recipe, value):
    for group in fields(recipe):
        if not is_dataclass(options := getattr(recipe, group.name)):
            continue
        for field in fields(options):
            now = getattr(options, field.name)
            given = (value,) * max(1, len(now)) if isinstance(now, tuple) else value
            if f"{group.name}.{field.name}" != "model.heads":
                with pytest.raises(InputError):
                    type(options)(**{field.name: given})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Model(drop_path=1.0), "model.drop_path is 1.0; expected 0 or more, and less than 1"),
        (lambda: create_model("botnet_nano", norm_epsilon=0.0), "model.norm_epsilon is 0.0; expected more than 0"),
        (lambda: create_model("botnet_nano", norm_momentum=2), "model.norm_momentum is 2; expected from 0 to 1"),
        (lambda: make_settings({"rpn_positive_fraction": 1.5}), "rpn_positive_fraction is 1.5; expected from 0 to 1"),
        (lambda: make_settings({"score_threshold": math.nan}), "score_threshold is nan; expected from 0 to 1"),
        (
            lambda: DetectionImages(scale_jitter=(0.0, 1.0)),
            r"images.scale_jitter is \(0.0, 1.0\); expected more than 0",
        ),
        (lambda: DetectionImages(scale_jitter=(2.0, 1.0)), "images.scale_jitter is 2.0 to 1.0; two scales"),
        (lambda: Optimizer("adamv"), "unknown optimizer.name 'adamv'; did you mean adamw"),
        (lambda: ModelOptions(tables="ofset"), "unknown model.tables 'ofset'; did you mean offset"),
        (lambda: Settings(normalization="bach"), "unknown settings.normalization 'bach'; did you mean batch"),
    ],
)
def test_options_are_checked_as_they_are_made(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_an_unknown_recipe_suggests_the_nearest():
    with pytest.raises(InputError, match="did you mean imagenet_botnet50_200 or imagenet_botnet50_100"):
        find_recipe("imagenet_botnet50")
