"""Times that can be compared: implementations take turns round by round, and ratios are made within a round.

What else the machine does then meets everybody alike. A turn is as many calls as make it long enough to be measured,
and every call has another input, so that none finds its input in a cache (`rotations`).
"""

import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

Call = Callable[[int], Any]
"""One call of an implementation, on the input with this number; numbers go on, the implementation takes the remainder."""

SHORTEST_TURN_MS = 20.0
MOST_CALLS = 50  # a turn
ROOM_BYTES = 2**30  # for the inputs of one implementation
USUAL_CACHE_BYTES = 2**26  # where a machine does not say


def take_turns(
    calls: Mapping[str, Call],
    rounds: int,
    device: torch.device,
    on_turn: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of one call of each implementation, one figure a round.

    Args:
        calls: by the implementation's name.
        rounds: at least 1; who starts moves on by one each round.
        on_turn: told after every turn.

    Before the first round everybody is called once, which says how many calls make a turn and warms up.
    """
    assert rounds > 0
    names, number, together = list(calls), dict.fromkeys(calls, 0), {}
    for name in names:
        once = _turn(calls[name], number[name], 1, device)
        number[name] += 1
        together[name] = min(MOST_CALLS, math.ceil(SHORTEST_TURN_MS / once))
        on_turn()
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(rounds):
        start = round_ % len(names)
        for name in names[start:] + names[:start]:
            times[name].append(_turn(calls[name], number[name], together[name], device))
            number[name] += together[name]
            on_turn()
    return times


def ratio(one: list[float], other: list[float]) -> float:
    """The median of one / other, round by round."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def rotations(input_bytes: int, device: torch.device) -> int:
    """How many inputs of this size lie beyond the caches together, and at least 3; fewer where memory forbids it."""
    wanted = 2 * _cache_bytes(device) // max(input_bytes, 1) + 1
    return max(3, min(wanted, ROOM_BYTES // max(input_bytes, 1)))


def _turn(call: Call, first: int, calls: int, device: torch.device) -> float:
    """Milliseconds a call."""
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
    return max((int(size[:-1]) * 1024 for size in found if size.endswith("K")), default=USUAL_CACHE_BYTES)
