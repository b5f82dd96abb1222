"""The Python of docs/how_to runs as it stands there, page by page, and the tests that keep a page true exist."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import torch

from botformer.data.detection.layouts import open_detection_datasets
from tests.contracts.test_readme import python_blocks
from tests.data.detection.coco_files import annotation, content, image, write

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/how_to").glob("*.md"))
COMPILE = torch.compile


@cache
def names_in(file: Path) -> set[str]:
    return {node.name for node in ast.parse(file.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """All blocks of a page, one after the other, in an empty folder -> the names that they leave."""

    def run_page(name: str) -> dict:
        monkeypatch.chdir(tmp_path)
        names: dict = {}
        for block in python_blocks(ROOT / f"docs/how_to/{name}.md"):
            exec(block, names)
        return names

    return run_page


def test_every_page_with_python_is_run_below():
    source = Path(__file__).read_text(encoding="utf-8")
    for page in PAGES:
        assert bool(python_blocks(page)) == (f'run("{page.stem}")' in source), page.name


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "README"], ids=lambda page: page.stem)
def test_the_tests_that_keep_a_page_true_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\S+?\.py)::(\w+)`", text.partition("**Kept true by**")[2])
    assert len(named) >= 3
    for file, test in named:
        assert test in names_in(ROOT / file), (file, test)
    assert f"({page.name})" in (ROOT / "docs/how_to/README.md").read_text(encoding="utf-8")


def test_another_input_size(run):
    names = run("another_input_size")
    assert names["logits"].shape == (2, 10)
    assert names["out"].shape == (1, 64, 25, 33)
    assert names["logits_of_timm"].shape == (1, 1000)
    assert names["maps"]["c5"].shape == (2, 256, 12, 12)
    backbone = names["backbone"]
    torch.nn.init.ones_(backbone.layer4[0].bn3.weight)  # which starts at 0: a new block is its shortcut
    with_mask, without = (backbone(names["canvas"], mask)["c5"] for mask in (names["padding_mask"], None))
    assert not torch.allclose(with_mask[0, :, :, :6], without[0, :, :, :6])


def test_change_the_size(run):
    names = run("change_the_size")
    assert names["built"].shape[0] == 15
    used = names["used"]
    assert [len(used["rel_height"]), len(used["rel_width"])] == [23, 39]
    torch.testing.assert_close(used["rel_height"][4:19], names["built"])  # every offset that the table has
    assert torch.equal(used["rel_height"][0], names["built"][0])
    torch.testing.assert_close(names["larger"](x := torch.randn(1, 3, 96, 160)), names["model"](x))


def test_not_the_paper(run):
    names = run("not_the_paper")
    assert names["difference"] < 1e-6
    assert names["papers"][0].position == "relative"


def test_wanted_and_absent(run):
    names = run("wanted_and_absent")
    assert names["found"][0].keys() == {"boxes", "labels", "scores", "masks"}
    assert names["found_of_timm"][0].keys() == {"boxes", "labels", "scores"}
    assert names["out"].shape == (1, 4, 20, 30, 16)


def test_export_and_compile(run, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda model, **options: COMPILE(model, **options | {"backend": "eager"}))
    names = run("export_and_compile")
    assert names["difference"] < 1e-5
    assert names["fast"](torch.randn(1, 3, 48, 48)).shape == (1, 10)


def test_export_at_any_size(run):
    names = run("export_at_any_size")
    model, pixels = names["model"], names["pixels"]
    torch.testing.assert_close(torch.from_numpy(names["logits"]), model(model.preprocess(pixels)), rtol=1e-3, atol=1e-4)
    assert names["difference"] < 1e-5
    images = torch.randn(3, 3, 70, 45)
    torch.testing.assert_close(names["program"].module()(images), model(images), rtol=1e-4, atol=1e-4)


def test_detectors_memory_and_training(run):
    names = run("detectors_memory_and_training")
    assert len(names["target"]["boxes"]) == 1239
    assert names["losses"]["loss_mask"].isfinite()
    text = (ROOT / "docs/how_to/detectors_memory_and_training.md").read_text(encoding="utf-8")
    assert f"{names['target']['mask_crops'].numel() / 1e6:.0f} MB as bytes" in text
    assert f"{1239 * 800 * 800 / 1e6:.0f} MB" in text


def test_install(run):
    assert run("install")["kept"].tolist() == [0]


def test_supply_chain(run, tmp_path):
    assert "stranger.pth" in run("supply_chain")["refused"]
    assert not (tmp_path / "proof_that_it_ran").exists()


def test_a_subset_of_cvat_called_validation_is_one(tmp_path):
    for subset, number in (("Train", 1), ("Validation", 2)):
        objects = [annotation(each, number, [1, 2, 3, 4]) for each in range(1, number + 1)]
        write(tmp_path, content([image(number)], objects), f"instances_{subset}.json", f"images/{subset}")
    assert [source.objects for source in open_detection_datasets(str(tmp_path))] == [1, 2]


def test_packages_that_the_page_excludes_are_no_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[\[<>=~ ]", each)[0].lower().replace("_", "-") for each in wanted}
    assert not names & {"lightning", "pytorch-lightning", "detectron2", "mmcv", "mmdet", "mmengine"}
    assert len(project["dependencies"]) == 12
