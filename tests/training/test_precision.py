"""The precision that "auto" stands for: measured once, remembered, and kept by a run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from botformer.training import precision
from botformer.training.distributed import open_accelerator
from botformer.training.loop import fit
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remembered = precision._remembered
    remembered.cache_clear()
    yield
    remembered.cache_clear()


def measured(monkeypatch, float32, bf16):
    calls = []

    def measure(device):
        calls.append(device)
        return {"float32": float32, "bf16": bf16}

    monkeypatch.setattr(precision, "measure", measure)
    return calls


@pytest.mark.parametrize(
    ("bf16", "expected"), [(0.5, "bf16"), (0.95, "float32"), (1.5, "float32"), (float("inf"), "float32")]
)
def test_the_faster_one_is_taken_where_the_difference_is_worth_it(monkeypatch, bf16, expected):
    measured(monkeypatch, 1.0, bf16)
    assert precision.fastest_precision(CPU) == expected


def test_it_is_measured_once_per_machine(monkeypatch, tmp_path):
    calls = measured(monkeypatch, 1.0, 0.5)
    assert precision.fastest_precision(CPU) == "bf16"
    precision._remembered.cache_clear()  # another process
    measured(monkeypatch, 1.0, 2.0)
    assert precision.fastest_precision(CPU) == "bf16"
    assert len(calls) == 1
    file = tmp_path / "cache" / "botformer" / "precision.json"
    assert list(json.loads(file.read_text(encoding="utf-8")).values()) == ["bf16"]


@pytest.mark.parametrize("content", ["", "[]", '{"cpu": 1}', "{"])
def test_a_broken_cache_is_measured_anew(monkeypatch, tmp_path, content):
    file = tmp_path / "cache" / "botformer" / "precision.json"
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="utf-8")
    measured(monkeypatch, 1.0, 0.5)
    assert precision.fastest_precision(CPU) == "bf16"


def test_a_cache_that_cannot_be_written_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    measured(monkeypatch, 1.0, 0.5)
    assert precision.fastest_precision(CPU) == "bf16"


def test_the_measurement_leaves_random_numbers_as_they_are_and_is_short():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    seconds = precision.measure(CPU)
    assert torch.equal(torch.rand(4), expected)
    assert 0 < seconds["float32"] < 5


def test_a_run_keeps_the_precision_it_began_with(monkeypatch, tmp_path):
    recipe = replace(toy_recipe(run={"max_steps": 2}), run=replace(toy_recipe().run, precision="auto", max_steps=2))
    measured(monkeypatch, 1.0, 2.0)
    assert open_accelerator(recipe.run).precision == "float32"
    fit(toy_task(), ToyBatches(), toy_evaluation(), recipe, tmp_path / "run")
    saved = json.loads((Path(tmp_path) / "run" / "recipe.json").read_text(encoding="utf-8"))
    assert saved["run"]["precision"] == "float32"
    precision._remembered.cache_clear()
    monkeypatch.setattr(precision, "_remembered", lambda device: "bf16")
    longer = replace(recipe, run=replace(recipe.run, max_steps=4))
    fit(toy_task(), ToyBatches(), toy_evaluation(), longer, tmp_path / "run")
    saved = json.loads((Path(tmp_path) / "run" / "recipe.json").read_text(encoding="utf-8"))
    assert (saved["run"]["precision"], saved["run"]["max_steps"]) == ("float32", 4)
