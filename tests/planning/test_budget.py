"""How much training fits into the minutes."""

import pytest

from botformer.planning import budget
from botformer.planning.budget import Speed, Work, length, split_cores

WORK = Work(train=3_200, validation=400)
FAST = Speed(train_s=0.01, evaluate_s=0.004, create_s=5.0)


def planned(needed=3_000, batch=32, speed=FAST, work=WORK, left=600.0, calibration=0, fixed_steps=0):
    return length(needed, 3 * needed, batch, speed, work, left, calibration=calibration, fixed_steps=fixed_steps)


def spent(found, speed, work, batch, calibration):
    """The seconds of a run, counted one by one."""
    seconds, per_epoch = speed.create_s, work.train // batch
    measured = found.evaluation_images or work.validation
    seconds += calibration * speed.evaluate_s
    for step in range(1, found.steps + 1):
        seconds += batch * speed.train_s
        if step == found.steps or step % max(1, round(per_epoch * found.evaluate_every)) == 0:
            seconds += measured * speed.evaluate_s + budget.EVALUATION_EXTRA_S
    if found.tests:
        seconds += work.test * speed.evaluate_s + budget.EVALUATION_EXTRA_S
    return seconds + budget.REPORT_S + measured * speed.evaluate_s


@pytest.mark.parametrize("minutes", [1, 3, 15, 60, 600])
@pytest.mark.parametrize("images", [20, 300, 3_000, 200_000])
@pytest.mark.parametrize("image_s", [0.002, 0.05])
@pytest.mark.parametrize("test", [0, 500])
def test_a_plan_says_how_long_it_takes_and_that_is_in_time(minutes, images, image_s, test):
    speed, work, batch = Speed(image_s, image_s / 3, 5.0), Work(images, images // 10, test), min(32, images)
    found = planned(4 * images, batch, speed, work, 60.0 * minutes, calibration=256)
    assert found.seconds == pytest.approx(spent(found, speed, work, batch, calibration=256))
    assert found.seconds <= 60 * minutes or found.steps == budget.LEAST_STEPS


@pytest.mark.parametrize("minutes", [2, 15, 240])
def test_evaluations_between_take_a_tenth_of_the_training_at_most(minutes):
    speed, work = Speed(0.01, 0.01), Work(1_000, 1_000)
    found = planned(10**9, 32, speed, work, 60.0 * minutes)
    between = (found.steps - 1) // max(1, round(found.evaluate_every * (1_000 // 32)))
    one = (found.evaluation_images or 1_000) * 0.01 + budget.EVALUATION_EXTRA_S
    assert between * one <= 0.1 * found.steps * 32 * 0.01 + 1e-9
    assert between <= budget.MOST_EVALUATIONS


def test_more_time_is_not_always_used():
    assert planned(3_000, left=1e6).steps * 32 == pytest.approx(3 * 3_000, rel=0.4)
    assert planned(3_000, left=1e6).steps == planned(3_000, left=None).steps
    assert planned(3_000, left=1e6).is_enough


def test_it_is_enough_when_the_candidate_gets_its_images():
    speed, work = Speed(0.01, 0.001), Work(320, 10)
    # Fixed costs: 1.51 s for the last evaluation, 10.01 s for the report; then 0.32 s per step, a tenth to evaluate.
    left = (11.52 + 100 * 0.32 * 1.1) / 0.96 + 0.01
    assert planned(3_200, 32, speed, work, left).steps == 100
    assert planned(3_200, 32, speed, work, left).is_enough
    assert not planned(3_201, 32, speed, work, left).is_enough


def test_no_time_at_all_gives_the_fewest_steps():
    found = planned(left=-50.0)
    assert (found.steps, found.is_enough) == (budget.LEAST_STEPS, False)
    assert found.seconds > 0


def test_many_epochs_are_whole():
    found = planned(10**6, work=Work(320, 10), left=300.0)
    assert found.steps > 50
    assert found.steps % 10 == 0


def test_large_data_and_a_small_budget_give_a_part_of_an_epoch_and_of_the_validation_images():
    found = planned(10**6, 32, FAST, Work(1_000_000, 50_000), 600.0)
    assert 0 < found.steps * 32 < 100_000
    assert 200 <= found.evaluation_images <= 0.1 * 600 / FAST.evaluate_s
    assert found.evaluate_every * (1_000_000 // 32) == found.steps  # one evaluation is all that a tenth is enough for


@pytest.mark.parametrize(("images", "minutes"), [(1_281_167, 10), (3_000_000, 5), (14_000_000, 5), (14_000_000, 1)])
def test_of_huge_data_there_is_no_evaluation_just_before_the_last(images, minutes):
    found = planned(10**9, 32, Speed(0.05, 0.02, 5.0), Work(images, 50_000), 60.0 * minutes)
    every = round(found.evaluate_every * (images // 32))
    assert found.evaluate_every > 0
    assert every == found.steps or (found.steps - 1) % every + 1 >= every / 2


@pytest.mark.parametrize(
    ("minutes", "evaluate_s", "validation", "test"),
    [(45, 0.5, 5_000, 0), (20, 0.25, 2_000, 3_000), (3, 0.6, 500, 0), (3, 0.05, 50_000, 0), (1, 0.01, 1, 100_000)],
)
def test_slow_evaluations_of_much_data_leave_most_of_the_time_to_training(minutes, evaluate_s, validation, test):
    speed = Speed(train_s=0.05, evaluate_s=evaluate_s, create_s=5.0)
    found = planned(10**9, 8, speed, Work(2_000, validation, test), 60.0 * minutes)
    assert found.seconds <= 60 * minutes
    assert found.steps * 8 * 0.05 >= 0.4 * 60 * minutes
    assert 1 <= (found.evaluation_images or validation) <= validation


def test_fixed_steps_are_kept_and_enough_if_they_end_in_time():
    assert planned(10**9, fixed_steps=77).steps == 77
    assert planned(10**9, fixed_steps=77).is_enough
    assert not planned(10**9, fixed_steps=77, left=20.0).is_enough


def test_cores_are_divided_by_what_was_measured():
    # Two threads are hardly faster than one: the second core reads.
    assert split_cores(0.020, 0.019, 0.008, cores=2) == (1, 1, 0.020)
    # Two threads are twice as fast, and reading is cheap.
    assert split_cores(0.020, 0.010, 0.001, cores=2) == (2, 1, pytest.approx(0.0105))
    # Reading is what takes the time: as many cores as it needs.
    threads, readers, seconds = split_cores(0.004, 0.001, 0.030, cores=8)
    assert (threads, readers) == (1, 7)
    assert seconds == pytest.approx(0.030 / 7)
    assert split_cores(0.020, 0.020, 0.005, cores=1) == (1, 0, pytest.approx(0.025))
    # A container that may use few of the cores that it sees: on all of them a step is slower.
    assert split_cores(0.05, 0.2, 0.004, cores=64) == (1, 1, 0.05)
