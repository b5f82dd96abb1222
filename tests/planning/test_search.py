"""Which candidates are timed, and which is taken."""

import pytest

from botformer.planning.search import search

COSTS = [64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0]


def found(limit, speed=lambda cost: cost, time_for=lambda cost: True):
    """The one taken where at most `limit` seconds per image fit, and those that were measured."""
    chosen, measured = search(
        COSTS,
        lambda place: speed(COSTS[place]),
        lambda place, seconds, factor: seconds * factor <= limit,
        time_for,
    )
    return chosen, set(measured)


@pytest.mark.parametrize(("limit", "best"), [(100, 0), (64, 0), (63, 1), (5, 4), (1, 6), (0.1, 6)])
def test_the_first_that_fits_is_taken_and_few_are_measured(limit, best):
    chosen, measured = found(limit)
    assert chosen == best
    assert measured <= {best, 6}


@pytest.mark.parametrize("power", [0.5, 0.8, 1.3])
@pytest.mark.parametrize("limit", [40, 10, 3])
def test_speed_that_does_not_follow_the_arithmetic_is_measured_until_it_is_known(power, limit):
    chosen, _ = found(limit, speed=lambda cost: cost**power)
    fitting = [place for place, cost in enumerate(COSTS) if cost**power <= limit]
    assert chosen in fitting
    assert chosen - fitting[0] <= (1 if power < 1 else 0)  # where arithmetic promises less than there is, one is missed


def test_without_time_only_the_last_is_measured():
    assert found(100, time_for=lambda cost: False) == (6, {6})


def test_of_those_that_there_is_time_to_measure_the_best_is_taken():
    chosen, measured = found(100, time_for=lambda cost: cost <= 10)
    assert (chosen, measured) == (3, {3, 6})


def test_a_single_candidate_is_measured_and_taken():
    assert search([1.0], lambda place: place, lambda *_: False, lambda cost: True) == (0, {0: 0})
