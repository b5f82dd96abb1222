"""Comparable times: implementations take turns within each round, and ratios are taken within a round.

Other load on the machine then affects all of them alike. A turn consists of enough calls to be measurable, and
consecutive calls have different inputs, so that no input is still in a cache (`rotations`).
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

Call = Callable[[int], Any]
"""One call of an implementation: input number -> output. Numbers keep rising; the call takes the remainder."""


@dataclass(frozen=True)
class Replay:
    """A call that replays a CUDA graph. `captured` owns the memory that the graph reads and writes."""

    captured: Any
    graph: torch.cuda.CUDAGraph

    def __call__(self, number: int) -> None:
        self.graph.replay()


SHORTEST_TURN_MS = 20.0
MOST_CALLS = 50  # per turn
MOST_INPUT_BYTES = 2**30  # per implementation
MOST_INPUTS = 256
FEWEST_ROUNDS = 3  # however little time there is
DEFAULT_CACHE_BYTES = 2**26  # where the size is unknown


def take_turns(
    calls: Mapping[str, Call],
    rounds: int,
    device: torch.device,
    on_turn: Callable[[], None] = lambda: None,
    seconds: float = 0,
) -> dict[str, list[float]]:
    """Milliseconds per call of each implementation, one figure per round.

    Args:
        calls: by the implementation's name.
        rounds: at least 1. Each round starts with the next implementation.
        on_turn: called after every turn.
        seconds: fewer rounds, but three, where so many would take longer. 0: no limit.

    Before the first round each is called once: to warm up, and to find how many calls make a turn.
    """
    assert rounds > 0
    names, number, calls_per_turn, round_ms = list(calls), dict.fromkeys(calls, 0), {}, 0.0
    for name in names:
        if device.type == "cuda":  # kernels are chosen and compiled in a first call, which says nothing of the next
            _turn(calls[name], number[name], 1, device)
            number[name] += 1
        once = _turn(calls[name], number[name], 1, device)
        number[name] += 1
        calls_per_turn[name] = min(MOST_CALLS, math.ceil(SHORTEST_TURN_MS / once))
        round_ms += calls_per_turn[name] * once
        on_turn()
    if seconds:
        rounds = min(rounds, max(FEWEST_ROUNDS, int(1e3 * seconds / round_ms)))
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        start = round_ % len(names)
        for name in names[start:] + names[:start]:
            times[name].append(_turn(calls[name], number[name], calls_per_turn[name], device))
            number[name] += calls_per_turn[name]
            on_turn()
    return times


def ratio(one: list[float], other: list[float]) -> float:
    """The median of one / other within each round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def rotations(input_bytes: int, device: torch.device) -> int:
    """How many inputs of this size together exceed the caches: at least 3, within the limits above if possible."""
    wanted = 2 * _cache_bytes(device) // max(input_bytes, 1) + 1
    return max(3, min(wanted, MOST_INPUT_BYTES // max(input_bytes, 1), MOST_INPUTS))


def _turn(call: Call, first: int, calls: int, device: torch.device) -> float:
    """Milliseconds per call."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        start.record()
        for number in range(first, first + calls):
            call(number)
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / calls
    begun = perf_counter()
    for number in range(first, first + calls):
        call(number)
    return 1e3 * (perf_counter() - begun) / calls


def _cache_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    found = [path.read_text().strip() for path in sizes]
    return max((int(size[:-1]) * 1024 for size in found if size.endswith("K")), default=DEFAULT_CACHE_BYTES)
