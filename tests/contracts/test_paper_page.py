"""docs/paper.md: what it names exists, its counts are counted, and what it prints of the paper is what the code has."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from botformer import BoTBlock, create_model
from botformer.backbone.blocks import Bottleneck
from botformer.backbone.flops import count
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.variants import PUBLISHED, ROWS
from botformer.recipes import EXPERIMENTS, find_experiment
from botformer.recipes.experiment import NOT_IN_THE_PAPER
from botformer.training.schedule import make_plan

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/paper.md").read_text(encoding="utf-8")


def tables() -> list[tuple[list[str], list[list[str]]]]:
    """Head and lines of every table of the page."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", TEXT, re.MULTILINE)
    split = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [(head, lines) for head, _, *lines in split]


def table(*head: str) -> list[list[str]]:
    (lines,) = [lines for found, lines in tables() if found[: len(head)] == list(head)]
    return lines


STATEMENTS = [line for head, lines in tables() if head[:2] == ["", "paper"] for line in lines]
PROOFS = re.findall(r"^\* \*\*(\d+\.\d+)\*\* (.*?):\n  (`tests/.*?`)$(?!\n  )", TEXT, re.MULTILINE | re.DOTALL)


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_statement_has_its_code_and_its_test():
    assert [line[0] for line in STATEMENTS] == [line[0] for line in PROOFS]
    assert len({line[0] for line in STATEMENTS}) == len(STATEMENTS) >= 40
    for number, *cells in STATEMENTS:
        assert len(cells) == 4, number
        assert cells[1], f"{number} does not say what we do"


@pytest.mark.parametrize("proof", PROOFS, ids=lambda line: line[0])
def test_code_and_tests_that_are_named_exist(proof):
    _, code, named = proof
    for name, target in re.findall(r"\[`(.+?)`\]\((.+?)\)", code):
        assert target.endswith(f"/{name}")
        assert (ROOT / "docs" / target).is_file()
    assert "](../src/botformer/" in code
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", named)
    assert named
    for file, test in named:
        assert test in names_in(file)


def test_every_count_is_what_is_counted():
    lines = table("model", "pixels", "parameters")
    assert {name for name, *_ in lines} >= set(PUBLISHED)
    for name, size, parameters, without, paper_parameters, multiply_adds, paper_multiply_adds in lines:
        counts = count(ROWS[name], int(size))
        assert parameters == f"{counts.parameters:,}"
        assert without == f"{count(ROWS[name], int(size), tables=False).parameters:,}"
        assert multiply_adds == f"{counts.multiply_adds / 1e9:.3f}e9"
        published = {each.image_size: each for each in PUBLISHED.get(name, ())}.get(int(size))
        assert paper_parameters == (published.parameters if published else "")
        assert paper_multiply_adds == (published.multiply_adds if published else "")
    s1 = count(ROWS["botnet_s1_50"], 224).multiply_adds
    assert f"nobody reproduces it; we count {s1 / 1e9:.3f}e9" in TEXT


def test_scores_of_the_paper_are_those_of_the_recipes_and_ours_are_not_run():
    lines = table("recipe", "pixels", "epochs", "scale jitter") + table("recipe", "pixels", "epochs", "batch")
    assert {name for name, *_ in lines} == {name for name, row in EXPERIMENTS.items() if row.paper != NOT_IN_THE_PAPER}
    for name, size, epochs, *_, printed, ours in lines:
        row = find_experiment(name)
        assert (int(size), int(epochs)) == (row.recipe.images.size, row.recipe.schedule.epochs)
        assert printed in row.expect
        assert ours == row.cost == "not run"


def test_the_table_of_schedules_agrees_with_the_recipes():
    lines = table("recipe", "paper: box AP")
    assert len(lines) == 8
    for name, box, box50, box75, mask, mask50, mask75 in lines:
        assert find_experiment(name).expect == f"paper: {box} / {mask} box / mask AP"
        assert float(box50) > float(box75) > float(box)
        assert float(mask50) > float(mask75) > float(mask)


def test_the_scaled_family_is_what_the_page_says():
    for name, size, printed, _ in table("model", "pixels", "paper: top-1 / top-5"):
        end = "_320" if (name, size) == ("T7", "320") else ""
        row = find_experiment(f"imagenet_botnet_{name.lower()}{end}_350")
        assert row.recipe.images.size == int(size)
        assert row.expect == f"paper: {printed.split(' / ')[0]} % top-1"
    assert {name: 2 + 3 * sum(ROWS[f"botnet_{name}"].blocks) for name in ("t3", "t4", "t5", "t6", "t7")} == {
        "t3": 59, "t4": 110, "t5": 128, "t6": 77, "t7": 128,
    }  # fmt: skip
    with torch.device("meta"):
        blocks = [block for block in create_model("botnet_t3").modules() if isinstance(block, Bottleneck)]
    for block in blocks:
        assert isinstance(block.act, nn.SiLU)
        assert isinstance(block.se, nn.Identity) == isinstance(block.conv2, MHSA2d)


def test_coco_recipes_are_what_the_page_says():
    for name, row in EXPERIMENTS.items():
        if not name.startswith("coco_"):
            continue
        recipe = row.recipe
        assert (recipe.run.batch_size, recipe.run.precision) == (64, "auto")
        assert (recipe.optimizer.name, recipe.optimizer.learning_rate) == ("momentum", 0.08)
        assert recipe.model.normalization == recipe.settings.normalization == "sync"


def test_what_the_44_4_needs_is_its_recipe():
    row = find_experiment("coco_botnet200_72_1280")
    recipe, section = row.recipe, TEXT.partition("## What does the 44.4 need?")[2].partition("\n## ")[0]
    words = " ".join(section.split())
    assert f"    {row.command}\n" in section
    assert (recipe.schedule.epochs, recipe.images.size, recipe.run.batch_size) == (72, 1280, 64)
    assert recipe.images.scale_jitter == (0.1, 2.0)
    assert recipe.model.gradient_checkpointing
    assert row.cost == "not run"
    assert row.paper in words
    assert f"{make_plan(recipe, 118_287 // 64).steps:,} steps" in words
    for name, size in (("botnet200", 1280), ("botnet50", 1024)):
        assert f"{count(ROWS[name], size, num_classes=0).multiply_adds / 1e9:.3f}e9" in words
    scaling = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    hours = {name: re.search(rf"^\| {name} \| 64 \| (\S*) ?\|", scaling, re.MULTILINE) for name in EXPERIMENTS}
    own, near = hours[row.name], hours["coco_botnet50_72_jitter_0.1"]
    assert own is not None
    assert near is not None
    assert own[1] == "", "it was measured: say so on the page"
    assert f"{near[1]} hours on one H100" in words


MEASURED = {
    "model_cpu": [({"px": 1024, "mode": "training step", "implementation": "botnet50, ours"}, "ratio")],
    "model_gpu": [
        ({"px": 1024, "mode": "training step", "implementation": "botnet50, ours"}, "ratio"),
        ({"px": 1024, "mode": "training step, CUDA graph", "implementation": "botnet50, ours, CUDA graph"}, "ms"),
    ],
    "headline_cpu": [({"group": "botnet_t7", "implementation": "efficientnet_b7, 600 px"}, "ratio")],
    "headline_gpu": [
        ({"group": "botnet_t7", "mode": "training step", "implementation": "efficientnet_b7, 600 px"}, "ratio")
    ],
    "nuclei_proof": [
        ({"predictor": "botnet50", "seed": "mean"}, "mask AP"),
        ({"predictor": "resnet50", "seed": "mean"}, "mask AP"),
    ],
}


def test_measured_figures_are_those_of_their_receipts():
    left = {name: list(rows) for name, rows in MEASURED.items()}
    for what, ours, paper, receipt in table("what", "ours"):
        name = re.sub(r"^\[(\w+)\].*", r"\1", receipt)
        figures = json.loads((ROOT / f"results/{name}.json").read_text(encoding="utf-8"))["figures"]
        labels, column = left[name].pop(0)
        (row,) = [row for row in figures if labels.items() <= row.items()]
        value = row[column]
        if column == "ms":
            whose = labels | {"implementation": "resnet50, CUDA graph"}
            (other,) = [row for row in figures if whose.items() <= row.items()]
            value /= other["ms"]
        assert ours == f"{value:.{len(ours.partition('.')[2])}f}", what
        assert not paper or "TPU-v3" in paper
    assert not any(left.values())


def test_weights_start_as_the_page_says():
    """He normal by fan-in: the variance of a convolution is 2 / inputs; that of q, k, v is 0.01^2."""
    torch.manual_seed(0)
    model = create_model("botnet50_half")
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert len(convolutions) == 53
    for name, module in convolutions.items():
        expected = 0.01 if name.endswith("qkv") else (2 / module.weight[0].numel()) ** 0.5
        assert module.weight.std().item() == pytest.approx(expected, rel=0.06), name
        assert abs(module.weight.mean().item()) < 0.03 * expected, name
    for block in (module for module in model.modules() if isinstance(module, Bottleneck)):
        assert not block.bn3.weight.any()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bot_block_is_the_order_that_the_page_gives(stride):
    torch.manual_seed(0)
    block = BoTBlock(16, 32, heads=2, size=(5, 6), stride=stride, zero_gamma=False).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    nn.init.normal_(block.conv2.qkv.weight)
    x = torch.randn(2, 16, 5, 6, dtype=torch.float64)
    attention = MHSA2d(8, 2, (5, 6)).double()
    attention.load_state_dict(block.conv2.state_dict())
    out = attention(block.bn1(block.conv1(x)).relu())
    out = nn.functional.avg_pool2d(out, 2, ceil_mode=True) if stride == 2 else out
    out = block.bn3(block.conv3(block.bn2(out).relu()))
    shortcut = block.downsample[1](nn.functional.conv2d(x, block.downsample[0].weight, stride=stride))
    torch.testing.assert_close(block(x), (shortcut + out).relu())
