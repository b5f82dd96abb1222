import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest

from botformer import stored_names
from botformer.errors import InputError
from botformer.recipes.from_json import recipe_from_json
from botformer.recipes.schema import ClassificationRecipe, Recipe
from botformer.training.loop import fit
from botformer.training.resume import as_json
from botformer.training.run_log import read_metrics
from botformer.training.trackers import find_trackers
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Drawing takes longer than training here."""
    monkeypatch.setattr("botformer.training.run_log.FileRunLog.draw", lambda self: None)


LINES = "tests.training.recording_tracker:LineTracker"


def train(out: Path, *trackers: str, **run: Any) -> Recipe:
    recipe = toy_recipe(run=run)
    recipe = replace(recipe, run=replace(recipe.run, trackers=trackers))
    fit(toy_task(), ToyBatches(), toy_evaluation(), recipe, out)
    return recipe


def told(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "lines.jsonl").read_text().splitlines()]


def as_journal(lines: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    return [(line["step"], line["values"]) for line in lines if "step" in line]


def train_steps(out: Path) -> list[int]:
    return [step for step, values in as_journal(told(out)) if "train/loss" in values]


def journal(out: Path) -> list[tuple[int, dict[str, Any]]]:
    return [
        (record["step"], {f"{record['kind']}/{k}": v for k, v in record.items() if k not in ("kind", "step")})
        for record in read_metrics(out / "metrics.jsonl")
    ]


def test_a_tracker_of_ones_own_is_told_the_recipe_and_the_journal(tmp_path):
    recipe = train(tmp_path, LINES, max_steps=4)
    started, config, *rest, finished = told(tmp_path)
    assert (started, finished) == ({"started": "botformer"}, {"finished": True})
    assert config["config"]["optimizer.learning_rate"] == recipe.optimizer.learning_rate
    assert json.loads(config["config"]["run.trackers"]) == [LINES]
    assert as_journal(rest) == journal(tmp_path)
    assert len(rest) >= 4


def test_a_run_that_was_killed_after_its_checkpoint_is_told_no_step_twice(tmp_path):
    train(tmp_path, LINES, max_steps=4, checkpoint_every=100)
    lines = told(tmp_path)
    journal_file = tmp_path / "metrics.jsonl"
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000004"
    # Two more steps were told and written down, and then came the kill.
    later = [json.loads(line) for line in journal_file.read_text().splitlines() if json.loads(line)["kind"] == "train"]
    for step in (5, 6):
        with journal_file.open("a") as file:
            file.write(json.dumps(later[-1] | {"step": step}) + "\n")
    train(tmp_path, LINES, max_steps=8, checkpoint_every=100)
    again = told(tmp_path)[len(lines) :]
    assert not any("config" in line for line in again)  # it has been told
    assert {step for step, _ in as_journal(again)} == {7, 8}
    assert train_steps(tmp_path) == [1, 2, 3, 4, 7, 8]


def test_a_tracker_that_joins_later_is_told_all_from_there_on(tmp_path):
    train(tmp_path, max_steps=2)
    train(tmp_path, LINES, max_steps=4)
    assert "config" in told(tmp_path)[1]
    assert train_steps(tmp_path) == [3, 4]


def scalars(out: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return events


def test_tensorboard_has_each_step_once_after_a_continuation(tmp_path):
    pytest.importorskip("tensorboard")
    train(tmp_path, "tensorboard", max_steps=3)
    train(tmp_path, "tensorboard", max_steps=6)
    found = scalars(tmp_path).Scalars("train/loss")
    losses = [record["loss"] for record in read_metrics(tmp_path / "metrics.jsonl") if record["kind"] == "train"]
    assert [event.step for event in found] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in found] == pytest.approx(losses)


@pytest.mark.parametrize(
    ("kind", "words", "steps"),
    [("FailsAtTheStart", "OSError: nobody is logged in)", []), ("FailsLater", "ConnectionError: the network", [1, 2])],
)
def test_a_tracker_that_fails_is_said_once_and_costs_nothing(tmp_path, capsys, kind, words, steps):
    train(tmp_path, f"tests.training.recording_tracker:{kind}", max_steps=6)
    said = capsys.readouterr().err.replace("\n", " ")
    assert said.count("WARNING: the tracker") == 1
    assert words in said
    assert "the training goes on" in said
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl") if record["kind"] == "train"] == [
        *range(1, 7)
    ]
    assert not steps or train_steps(tmp_path) == steps


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tensorbord", "did you mean tensorboard"),
        ("wandb", r"not installed; pip install wandb"),
        ("no_such_module:Tracker", "No module named 'no_such_module'"),
        ("tests.training.recording_tracker:Nothing", "module:Class"),
        ("tests.training.recording_tracker:NoTracker", "no subclass"),
        (":", "expected module:Class"),
    ],
)
def test_what_cannot_be_tracked_is_said_before_anything_is_written(tmp_path, monkeypatch, name, words):
    monkeypatch.setattr("botformer.training.trackers.get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(InputError, match=words):
        train(tmp_path / "run", name)
    assert not (tmp_path / "run").exists()


def test_tensorboard_is_an_extra_of_the_package(monkeypatch):
    monkeypatch.setattr("botformer.training.trackers.get_available_trackers", list)
    with pytest.raises(InputError, match=r"pip install 'botformer\[log\]'"):
        find_trackers(("tensorboard",))


def test_a_registered_tracker_has_its_name(monkeypatch):
    from tests.training.recording_tracker import LineTracker

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "lines", LineTracker)
    assert find_trackers(("lines",)) == {"lines": LineTracker}


@pytest.mark.parametrize(("before", "now"), [(True, ("tensorboard",)), (False, ())])
def test_recipes_of_older_versions_name_a_tracker_or_none(before, now):
    old = as_json(ClassificationRecipe())
    del old["run"]["trackers"]
    old["run"]["tensorboard"] = before
    assert recipe_from_json(ClassificationRecipe, stored_names.recipe(old)).run.trackers == now
