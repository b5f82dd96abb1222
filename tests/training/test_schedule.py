from dataclasses import replace
from pathlib import Path

import pytest
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch.optim.lr_scheduler import LinearLR, MultiStepLR, SequentialLR

from botformer.errors import InputError
from botformer.recipes.schema import Schedule
from botformer.training.loop import fit
from botformer.training.schedule import learning_rate, make_plan
from tests.training.toy import ToyBatches, toy_recipe, toy_task

STEPS_PER_EPOCH = 10
STEPS = 120
PEAK = 0.4


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


def ours(schedule: Schedule) -> list[float]:
    return [learning_rate(step, STEPS, schedule, STEPS_PER_EPOCH, PEAK) for step in range(STEPS)]


@pytest.mark.parametrize("warmup_start", [0.0, 0.1])
@pytest.mark.parametrize("warmup_epochs", [0, 2.5])
def test_cosine_equals_timm(warmup_epochs: float, warmup_start: float) -> None:
    schedule = Schedule(epochs=12, kind="cosine", warmup_epochs=warmup_epochs, warmup_start=warmup_start)
    warmup = int(warmup_epochs * STEPS_PER_EPOCH)
    timm = CosineLRScheduler(
        optimizer(),
        t_initial=STEPS - warmup,
        warmup_t=warmup,
        warmup_lr_init=warmup_start * PEAK,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    assert ours(schedule) == pytest.approx([timm._get_lr(step)[0] for step in range(STEPS)], abs=1e-12)


def test_cosine_peaks_after_the_warm_up_and_would_end_at_zero() -> None:
    schedule = Schedule(kind="cosine", warmup_epochs=2)
    rates = ours(schedule)
    assert max(rates) == rates[20] == PEAK
    assert learning_rate(STEPS, STEPS, schedule, STEPS_PER_EPOCH, PEAK) == pytest.approx(0, abs=1e-15)


def test_step_equals_torch_with_a_warm_up_from_a_fraction_of_the_peak() -> None:
    start = 0.0067 / 0.08
    schedule = Schedule(kind="step", warmup_epochs=0.5, warmup_start=start, milestones=(2 / 3, 8 / 9))
    peer = optimizer()
    warm_up = LinearLR(peer, start_factor=start, total_iters=5)
    falls = MultiStepLR(peer, milestones=[80 - 5, 107 - 5], gamma=0.1)  # counted from the end of the warm-up
    scheduler = SequentialLR(peer, [warm_up, falls], milestones=[5])
    expected = []
    for _ in range(STEPS):
        expected.append(peer.param_groups[0]["lr"])
        peer.step()
        scheduler.step()
    assert ours(schedule) == pytest.approx(expected, rel=1e-9)


def test_last_step_is_evaluated_and_saved_wherever_it_falls() -> None:
    recipe = toy_recipe(run={"evaluate_every": 2, "checkpoint_every": 3, "max_steps": 35}, schedule={"epochs": 10})
    plan = make_plan(recipe, steps_per_epoch=5)
    assert [s for s in range(36) if plan.evaluates(s)] == [10, 20, 30, 35]
    assert [s for s in range(36) if plan.saves(s)] == [10, 15, 20, 30, 35]  # before each evaluation, too
    recipe = replace(recipe, run=replace(recipe.run, checkpoint_every_steps=12))
    plan = make_plan(recipe, steps_per_epoch=5)
    assert [s for s in range(36) if plan.saves(s)] == [10, 12, 15, 20, 24, 30, 35]
    assert (plan.steps, plan.last) == (50, 35)


@pytest.mark.parametrize(("steps_per_epoch", "later"), [(4, 4), (150, 150), (1251, 104), (40_037, 100)])
def test_journal_has_each_step_of_the_first_epoch_and_then_a_hundred_per_epoch(
    steps_per_epoch: int, later: int
) -> None:
    plan = make_plan(toy_recipe(schedule={"epochs": 4}), steps_per_epoch)
    kept = [step for step in range(1, plan.last + 1) if plan.records(step)]
    assert kept[:steps_per_epoch] == list(range(1, steps_per_epoch + 1))
    assert (len(kept) - steps_per_epoch) / 3 == pytest.approx(later, abs=1)
    assert kept[-1] == plan.last


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


def test_steps_take_the_place_of_epochs_and_may_be_a_part_of_one() -> None:
    recipe = toy_recipe(schedule={"epochs": 3, "steps": 7, "warmup_epochs": 0.2})
    plan = make_plan(recipe, STEPS_PER_EPOCH)
    assert (plan.steps, plan.last, plan.epoch(7)) == (7, 7, 0.7)
    assert [step for step in range(1, 8) if plan.evaluates(step)] == [7]
    last = learning_rate(6, plan.steps, recipe.schedule, STEPS_PER_EPOCH, PEAK)
    assert 0 < last < 0.15 * PEAK  # a finished cosine
    with pytest.raises(InputError, match=r"schedule\.steps 7"):
        make_plan(toy_recipe(schedule={"steps": 7, "warmup_epochs": 1.0}), STEPS_PER_EPOCH)
