"""Which candidates are timed, and which is taken: the first that gets what it needs."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def search(
    costs: Sequence[float],
    measure: Callable[[int], T],
    fits: Callable[[int, T, float], bool],
    may_measure: Callable[[float], bool],
) -> tuple[int, dict[int, T]]:
    """The first candidate that fits, the last if none does; and what was measured of some of them.

    The last is measured first, for it is the fastest. Others are then judged by the nearest one that was measured, in
    proportion to their arithmetic, and the first that seems to fit, and that there is time to measure, is measured
    itself, until that one is known.

    Args:
        costs: multiply-adds per image of the candidates, best candidate first.
        measure: the candidate of that place, on this machine.
        fits: whether the candidate of that place fits, judged by a measurement of one that costs so many times less.
        may_measure: whether there is time to measure one that costs so many times what the last one does.
    """
    last = len(costs) - 1
    measured = {last: measure(last)}
    while True:
        known = next((place for place in sorted(measured) if fits(place, measured[place], 1.0)), last)
        better = [place for place in range(known) if place not in measured]
        better = [place for place in better if _seems_to_fit(place, costs, measured, fits)]
        place = next((place for place in better if may_measure(costs[place] / costs[last])), None)
        if place is None:
            return known, measured
        measured[place] = measure(place)


def _seems_to_fit(
    place: int, costs: Sequence[float], measured: dict[int, T], fits: Callable[[int, T, float], bool]
) -> bool:
    nearest = min(measured, key=lambda other: (abs(other - place), -other))
    return fits(place, measured[nearest], costs[place] / costs[nearest])
