"""The whole plan, with candidates of which the speed is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from botformer.data.classification.dataset import ClassificationDataset
from botformer.errors import InputError
from botformer.planning import plan, step_times
from botformer.planning.budget import Speed
from botformer.planning.look_at_data import Found, ImageFacts
from botformer.planning.plan import make_plan_for
from botformer.planning.saved_plan import saved_recipe, write_plan
from botformer.planning.step_times import StepTimer, Timed

PHOTOS = ImageFacts(classes=10, images=3_000, most=320, fewest=280, shorter_px=375, long=0.0, has_sides="")


def photos(images=3_000, validation=300):
    def dataset(count):
        labels = np.arange(count) % 10
        return ClassificationDataset("photos", tuple("abcdefghij"), labels, None, np.arange(count))  # type: ignore[arg-type]

    return Found("classify", dataset(images), dataset(validation), 0, "photos", 0.1)


def half_width_alone(name):
    return "weights" if name.endswith("half") else None


@pytest.fixture
def machine(monkeypatch):
    """A machine whose speed follows the arithmetic, and which takes two seconds for every trial."""
    now = [0.0]

    def time(self, recipe, seconds):
        now[0] += 2.0
        image_s = plan._cost(plan.Candidate(recipe, "", 0, 0)) / 50e9
        run = replace(recipe.run, precision="float32", threads=2, workers=1)
        return Timed(replace(recipe, run=run), Speed(image_s, image_s / 3, 4.0), image_s, 0.001, image_s / 3)

    monkeypatch.setattr(StepTimer, "time", time)
    monkeypatch.setattr(plan, "time_with_loader", lambda timed, train, validation, seconds: timed)
    monkeypatch.setattr(plan, "image_facts", lambda dataset: replace(PHOTOS, images=len(dataset)))

    def make(minutes, found=None, fixed=None, weights=half_width_alone):
        now[0] = 3.0
        return make_plan_for(found or photos(), minutes, fixed or {}, 0.0, weights, lambda: now[0])

    return make


@pytest.mark.parametrize("minutes", [1, 3, 15, 60, 240, 10_000])
def test_more_time_gives_a_larger_network_and_ends_in_time(machine, minutes):
    made = machine(minutes)
    assert made.seconds <= 60 * minutes
    chosen = [place for place, row in enumerate(made.rows) if row.chosen]
    if minutes <= 3:
        assert chosen[0] > 0
    if minutes >= 240:
        assert chosen == [0]
        assert made.seconds < 60 * 10_000 / 10  # what is enough is enough


def test_nothing_is_left_to_the_machine(machine):
    recipe = machine(15).recipe
    assert recipe.run.precision == "float32"
    assert (recipe.run.threads, recipe.run.workers) == (2, 1)
    assert recipe.schedule.steps > 0
    per_epoch = 3_000 // recipe.run.batch_size
    assert recipe.schedule.warmup_epochs == pytest.approx(0.05 * recipe.schedule.steps / per_epoch, abs=1e-4)
    assert recipe.run.checkpoint_every == recipe.run.evaluate_every


def test_a_tenth_of_a_minute_is_answered_too(machine):
    made = machine(0.1)
    assert not made.is_enough
    assert made.recipe.schedule.steps == 10
    assert made.seconds > 6


def test_without_minutes_the_best_that_ends_by_the_morning(machine):
    made = machine(None)
    assert made.rows[0].chosen
    assert made.recipe.schedule.steps * 32 == pytest.approx(3 * 12 * 3_000, rel=0.01)


def test_what_is_fixed_is_kept_and_planned_around(machine):
    fixed = {
        "model.name": "botnet_mini",
        "images.size": 80,
        "run.batch_size": 16,
        "schedule.epochs": 4,
        "run.evaluate_every": 2,
        "optimizer.learning_rate": 0.1,
        "run.seed": 7,
    }
    made = machine(15, fixed=fixed)
    recipe = made.recipe
    assert (recipe.model.name, recipe.images.size, recipe.run.batch_size, recipe.run.seed) == ("botnet_mini", 80, 16, 7)
    assert (recipe.schedule.epochs, recipe.schedule.steps, recipe.run.evaluate_every) == (4, 0, 2)
    assert recipe.optimizer.learning_rate == 0.1
    assert recipe.model.weights == ""  # there are none for this network
    (row,) = made.rows
    assert row.epochs == pytest.approx(4, abs=0.1)


def test_random_weights_and_weights_of_a_file_are_kept(machine):
    assert {row.weights for row in machine(15, fixed={"model.weights": ""}).rows} == {""}
    assert {row.weights for row in machine(15, fixed={"model.weights": "run"}).rows} == {"run"}
    assert {row.weights for row in machine(15).rows} == {"imagenet"}
    assert {row.weights for row in machine(15, weights=lambda name: None).rows} == {""}


def test_a_data_set_smaller_than_a_batch_is_planned(machine):
    recipe = machine(3, found=photos(images=6, validation=2)).recipe
    assert recipe.run.batch_size == 6


def test_a_saved_plan_is_read_as_it_was(machine, tmp_path: Path):
    made = machine(15)
    write_plan(tmp_path, made, photos(), 15.0, "photos", "botformer train classify", "2026-01-01T00:00:00")
    assert saved_recipe(tmp_path, "classify", 15.0) is None  # its training never began
    (tmp_path / "recipe.json").write_text("{}", encoding="utf-8")
    assert saved_recipe(tmp_path, "classify", None) == made.recipe
    with pytest.raises(ValueError, match="train classify"):
        saved_recipe(tmp_path, "detect", None)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(ValueError, match="was not planned"):
        saved_recipe(tmp_path, "classify", None)


def test_a_batch_that_does_not_fit_into_memory_is_halved(monkeypatch):
    tried = []

    def timed(self, recipe, seconds):
        tried.append(recipe.run.batch_size)
        if recipe.run.batch_size > 8:
            raise torch.cuda.OutOfMemoryError
        return recipe

    monkeypatch.setattr(StepTimer, "_timed", timed)
    monkeypatch.setattr(step_times.torch.cuda, "empty_cache", lambda: None)
    recipe = plan.classification_candidates(PHOTOS, lambda name: False)[0].recipe
    assert StepTimer(None, None, set()).time(recipe, 1.0).run.batch_size == 8
    assert tried == [32, 16, 8]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        StepTimer(None, None, {"run.batch_size"}).time(recipe, 1.0)


def test_the_best_is_timed_however_much_more_it_computes_than_the_last(machine):
    for weights, best in ((lambda name: "weights", 0), (lambda name: None, 1)):  # 1: a night is too short for the first
        made = machine(None, found=photos(images=1_000), weights=weights)
        assert [row.chosen for row in made.rows].index(True) == best
        assert made.rows[best].images_per_s is not None


def test_a_long_budget_is_used_by_the_last_row_too(machine):
    """Where others are too slow, more passes than the row needs itself."""
    (row,) = machine(45, found=photos(images=800), fixed={"model.name": "resnet50_half", "images.size": 96}).rows
    assert row.epochs is not None
    assert row.epochs >= 10


def test_weights_that_were_found_but_cannot_be_read_are_done_without(machine, monkeypatch, caplog):
    real = StepTimer.time

    def time(self, recipe, seconds):
        if recipe.model.weights:
            raise InputError("open_nsfw.onnx is not the file that this version knows")
        return real(self, recipe, seconds)

    monkeypatch.setattr(StepTimer, "time", time)
    made = machine(15)
    assert {row.weights for row in made.rows} == {""}
    assert "not the file that this version knows" in caplog.text


def test_imagenet_by_name_is_no_more_within_reach_than_by_default(machine):
    made = machine(15, fixed={"model.weights": "imagenet"}, weights=lambda name: None)
    assert {row.model for row in made.rows} == {row.model for row in machine(15, weights=lambda name: None).rows}


def test_the_length_follows_the_speed_that_was_measured_with_the_loader(machine, monkeypatch):
    """Not that of the first few steps."""
    before = machine(3)
    monkeypatch.setattr(
        plan,
        "time_with_loader",
        lambda timed, *rest: replace(timed, speed=replace(timed.speed, train_s=timed.speed.train_s / 2)),
    )
    after = machine(3)
    chosen = [next(row for row in made.rows if row.chosen) for made in (before, after)]
    assert chosen[0].model == chosen[1].model
    assert after.recipe.schedule.steps >= 1.6 * before.recipe.schedule.steps
