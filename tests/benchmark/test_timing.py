import time

import pytest
import torch

from botformer.benchmark import timing
from botformer.benchmark.timing import ratio, rotations, take_turns

CPU = torch.device("cpu")


class Clock:
    """A clock that advances only when functions of known duration are called."""

    def __init__(self):
        self.seconds = 1e4

    def __call__(self):
        return self.seconds

    def takes(self, milliseconds, called=lambda number: None):
        def call(number):
            called(number)
            self.seconds += milliseconds / 1e3

        return call


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    return clock


def test_times_are_those_of_functions_of_known_duration(clock):
    times = take_turns({"fast": clock.takes(4), "slow": clock.takes(120)}, rounds=5, device=CPU)
    assert times["fast"] == pytest.approx([4] * 5)
    assert times["slow"] == pytest.approx([120] * 5)


def test_real_sleep_is_seen_in_full():
    (times,) = take_turns({"sleep": lambda number: time.sleep(0.004)}, rounds=2, device=CPU).values()
    assert min(times) >= 4


def test_implementations_take_turns_and_each_round_starts_with_the_next_one(clock):
    order: list[str] = []
    calls = {name: clock.takes(30, lambda number, name=name: order.append(name)) for name in "abc"}
    take_turns(calls, rounds=3, device=CPU)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"


def test_short_calls_are_repeated_and_every_call_gets_the_next_input(clock):
    numbers: list[int] = []
    take_turns({"one": clock.takes(8, numbers.append)}, rounds=3, device=CPU)
    assert numbers == list(range(1 + 3 * 3))  # three calls of 8 ms make a turn of at least 20


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 20), (100, 20), (1.05, 10), (0.1, 3)])
def test_there_are_fewer_rounds_where_time_is_short_but_three(clock, seconds, rounds):
    times = take_turns({"a": clock.takes(40), "b": clock.takes(60)}, 20, CPU, seconds=seconds)
    assert [len(of) for of in times.values()] == [rounds, rounds]


def test_the_median_ratio_is_of_pairs_within_a_round():
    # A machine that becomes ten times slower half-way: medians of the times would compare different machines.
    assert ratio([2, 2, 20], [1, 10, 10]) == 2


def test_inputs_that_rotate_are_larger_than_the_cache(monkeypatch):
    monkeypatch.setattr(timing, "_cache_bytes", lambda device: 2**20)
    assert rotations(2**16, CPU) * 2**16 > 2 * 2**20
    assert rotations(2**40, CPU) == 3
