"""The README promises nothing that does not run."""

import re
import shlex
from pathlib import Path

import pytest
import torch

import botformer
from botformer import cli
from botformer.backbone.flops import count
from botformer.backbone.variants import PUBLISHED, ROWS
from botformer.commands import train
from botformer.recipes import EXPERIMENTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_python_runs_and_gives_the_shapes_it_says():
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(block[1], names)
    assert names["logits"].shape == (2, 10)
    assert list(names["maps"]) == ["c2", "c3", "c4", "c5"]
    assert len(block[1].strip().splitlines()) == 6


def test_the_python_of_detectors_runs():
    """With a smaller canvas, and the images and targets that the README leaves to the reader."""
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1]
    masks = torch.zeros(1, 100, 128, dtype=torch.bool)
    masks[0, 20:60, 30:90] = True
    target = {"boxes": torch.tensor([[30.0, 20.0, 90.0, 60.0]]), "labels": torch.tensor([7]), "masks": masks}
    names: dict = {"botformer": botformer, "images": [torch.rand(3, 100, 128)], "targets": [target]}
    exec(block.replace("image_size=1024", "image_size=128"), names)
    assert names["losses"].keys() >= {"loss_mask", "loss_box_reg"}
    assert [found.keys() for found in names["found"]] == [{"boxes", "labels", "scores", "masks"}]
    assert names["config"]["categories"] == [[1, "nucleus"]]


def test_the_python_of_speed_runs():
    pytest.importorskip("timm")
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[2]
    names: dict = {"botformer": botformer, "torch": torch, "model": botformer.create_model("botnet_nano").eval()}
    exec(block, names)
    images = torch.randn(1, 3, 65, 48)
    expected = names["model"](images)
    torch.testing.assert_close(names["fast"](images), expected)
    assert names["faster"](images).dtype == torch.float32
    assert names["freed"].eval()(torch.randn(1, 3, 96, 160)).shape == (1, 1000)


def test_the_table_of_models_is_what_is_counted_and_what_the_paper_prints():
    lines = re.findall(r"^\| (\w+) \| (\d+) \| ([\d,]+) \| (.*?) ?\| ([\d.]+e9) \| (.*?) ?\|$", README, re.MULTILINE)
    assert len(lines) == 8
    for name, size, parameters, paper_parameters, multiply_adds, paper_multiply_adds in lines:
        counts = count(ROWS[name], int(size))
        published = next(p for p in PUBLISHED[name] if p.image_size == int(size))
        assert f"{counts.parameters:,}" == parameters
        assert f"{counts.multiply_adds / 1e9:.3f}e9" == multiply_adds
        assert paper_parameters.split(" ")[0] == published.parameters
        assert paper_multiply_adds.split(" ")[0] == published.multiply_adds


def test_every_command_line_is_one_that_the_program_takes(monkeypatch):
    """Verbs, recipes and fields exist; nothing is trained."""
    called = []
    monkeypatch.setattr(train, "train", lambda recipe, data, out, resume: called.append((recipe, data, out)) or {})
    commands = re.findall(r"^    (botformer .*?)(?: {2,}#.*)?$", README, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        verb, *arguments = shlex.split(command)[1:]
        assert verb in cli.COMMANDS
        if verb == "train":
            assert cli.main([verb, *arguments]) == 0
            assert arguments[0] in EXPERIMENTS
    assert len(called) == 4
    assert {recipe.run.batch_size for recipe, _, _ in called} == {8, 64, 1024}


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"^ {4}make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
