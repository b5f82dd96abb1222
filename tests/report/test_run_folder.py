"""What a run's folder says of itself."""

import json

import pytest

from botformer.errors import InputError
from botformer.report.run_folder import RunFolder


def folder(at, schedule, *records):
    (at / "recipe.json").write_text(json.dumps({"schedule": schedule, "run": {}}))
    lines = [json.dumps({"kind": "train", "loss": 1.0} | record) + "\n" for record in records]
    (at / "metrics.jsonl").write_text("".join(lines))
    return RunFolder(at)


@pytest.mark.parametrize(("step", "finished"), [(16, True), (15, False)])
def test_a_run_that_counts_steps_ends_with_the_last_one(tmp_path, step, finished):
    """Ten steps per epoch: 16 steps are 1.6 epochs, which the plan rounds up to 2."""
    run = folder(tmp_path, {"epochs": 2, "steps": 16}, {"step": 10, "epoch": 1.0}, {"step": step, "epoch": step / 10})
    assert run.finished == finished
    assert run.epochs_planned == pytest.approx(1.6)


@pytest.mark.parametrize(("epoch", "finished"), [(2.0, True), (1.9, False)])
def test_a_run_that_counts_epochs_ends_with_the_last_one(tmp_path, epoch, finished):
    run = folder(tmp_path, {"epochs": 2, "steps": 0}, {"step": 7, "epoch": epoch})
    assert run.finished == finished
    assert run.epochs_planned == 2


def test_nothing_is_done_before_the_first_record(tmp_path):
    run = folder(tmp_path, {"epochs": 2, "steps": 16})
    assert not run.finished
    assert run.epochs_planned == 2


@pytest.mark.parametrize("field", ["epochs", "steps"])
def test_a_damaged_recipe_is_named(tmp_path, field):
    (tmp_path / "recipe.json").write_text(json.dumps({"schedule": {field: "*"}, "run": {}}))
    with pytest.raises(InputError, match=rf"recipe\.json is damaged.*schedule\.{field}"):
        _ = RunFolder(tmp_path).finished
