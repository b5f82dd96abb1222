from pathlib import Path

import pytest

from botformer.errors import InputError
from botformer.training.loop import fit
from botformer.training.plan import make_plan
from tests.training.toy import ToyBatches, toy_recipe, toy_task


def test_last_step_is_evaluated_and_saved_wherever_it_falls() -> None:
    recipe = toy_recipe(run={"evaluate_every": 2, "checkpoint_every": 3, "max_steps": 35}, schedule={"epochs": 10})
    plan = make_plan(recipe, steps_per_epoch=5)
    assert [s for s in range(36) if plan.evaluates(s)] == [10, 20, 30, 35]
    assert [s for s in range(36) if plan.saves(s)] == [15, 30, 35]
    assert (plan.steps, plan.last) == (50, 35)


def test_max_steps_beyond_the_schedule_adds_nothing() -> None:
    assert make_plan(toy_recipe(run={"max_steps": 1000}), steps_per_epoch=4).last == 12


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"schedule": {"warmup_epochs": 3.0}}, "warmup_epochs"),
        ({"schedule": {"epochs": 0}}, "epochs"),
        ({"run": {"accumulation": 0}}, "accumulation"),
        ({"run": {"evaluate_every": 0}}, "evaluate_every"),
        ({"run": {"keep": 0}}, "keep"),
        ({"run": {"max_steps": -1}}, "max_steps"),
        ({"run": {"threads": -1}}, "threads"),
    ],
)
def test_settings_that_make_no_run_are_named(settings: dict, word: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=word):
        fit(toy_task(), ToyBatches(), [], toy_recipe(**settings), tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_few_images_for_one_batch_is_an_error() -> None:
    with pytest.raises(InputError, match=r"run\.batch_size"):
        make_plan(toy_recipe(), steps_per_epoch=0)
