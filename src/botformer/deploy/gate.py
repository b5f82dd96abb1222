"""Whether a network in int8 is worth keeping: faster than the float network on this machine, and as accurate."""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from botformer.deploy.exported_folder import read_config
from botformer.deploy.runtimes import Runtime, open_model

_ROUNDS = 9
_SHORTEST_TURN_S = 0.05
_MOST_CALLS = 20
_WARM_UP = 3
"""Calls before the first that counts: OpenVINO compiles for a size in the second one."""


class Scale(NamedTuple):
    """What a score means."""

    metric: str
    counted: int
    unit: str
    """It is over so many images, or objects."""


@dataclass(frozen=True)
class Verdict:
    """Both networks measured. Times are of one call on this machine."""

    metric: str
    float_score: float
    int8_score: float
    limit: float
    """The most that may be lost."""
    counted: int
    unit: str
    float_ms: float
    int8_ms: float
    speedup: float
    """Median over the rounds of float time / int8 time within a round."""

    @property
    def lost(self) -> float:
        return self.float_score - self.int8_score

    @property
    def reasons(self) -> list[str]:
        """Why it is refused; empty if it is kept."""
        found = []
        if not self.speedup > 1:
            found.append("it is not faster")
        if not self.lost <= self.limit + 1e-9:
            found.append(f"it loses more than {self.limit:g} of {self.metric}")
        return found

    @property
    def too_few(self) -> bool:
        """Whether one image, or object, changes the score by more than may be lost."""
        return self.counted * self.limit < 1

    def figures(self) -> str:
        """Both figures in words."""
        said = (
            f"float32 {self.float_ms:.3g} ms and {self.metric} {self.float_score:.4f}, int8 {self.int8_ms:.3g} ms and "
            f"{self.int8_score:.4f} (speed {self.speedup:.2f} times, on {self.counted} {self.unit})"
        )
        if self.too_few:
            said += (
                f"; {self.counted} {self.unit} are too few to tell a loss of {self.limit:g}: it takes "
                f"{math.ceil(1 / self.limit)} and better ten times as many"
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "kept": not self.reasons, "reasons": self.reasons, "too_few": self.too_few}


def gate(
    float_folder: Path,
    int8_folder: Path,
    evaluate: Callable[[Runtime], float],
    limit: float,
    inputs: Mapping[str, np.ndarray],
    scale: Callable[[], Scale],
) -> Verdict:
    """Measure the same network in float32 and in int8.

    Args:
        float_folder, int8_folder: exported networks of one format.
        evaluate: the accuracy of a network that was opened, higher is better.
        limit: how much lower that of int8 may be.
        inputs: of one call, to time; both are given the same.
        scale: asked once both are evaluated.
    """
    runtimes = [open_model(read_config(folder), folder) for folder in (float_folder, int8_folder)]
    scores = [evaluate(runtime) for runtime in runtimes]
    float_ms, int8_ms = _take_turns(*(lambda runtime=runtime: runtime(**inputs) for runtime in runtimes))
    metric, counted, unit = scale()
    return Verdict(
        metric=metric,
        float_score=round(scores[0], 6),
        int8_score=round(scores[1], 6),
        limit=limit,
        counted=counted,
        unit=unit,
        float_ms=round(statistics.median(float_ms), 3),
        int8_ms=round(statistics.median(int8_ms), 3),
        speedup=round(statistics.median(a / b for a, b in zip(float_ms, int8_ms, strict=True)), 3),
    )


def _take_turns(*calls: Callable[[], object]) -> list[list[float]]:
    """Milliseconds per call, one figure per round: load of other programs then slows both alike."""
    counts, times = [], [[] for _ in calls]
    for call in calls:
        for _ in range(_WARM_UP):
            call()
        counts.append(min(_MOST_CALLS, math.ceil(_SHORTEST_TURN_S / _seconds(call, 1))))
    for round_ in range(_ROUNDS):
        order = list(range(len(calls)))
        for place in order[round_ % 2 :] + order[: round_ % 2]:
            times[place].append(1e3 * _seconds(calls[place], counts[place]))
    return times


def _seconds(call: Callable[[], object], count: int) -> float:
    begun = perf_counter()
    for _ in range(count):
        call()
    return (perf_counter() - begun) / count
