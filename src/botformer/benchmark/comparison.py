"""A contest: implementations of one case checked against each other, timed in turns, weighed; a row of figures for each."""

import gc
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from botformer.benchmark.memory import peak_bytes
from botformer.benchmark.roofline import Peaks
from botformer.benchmark.timing import Call, ratio, take_turns

SEED = 0
Row = dict[str, Any]


@dataclass(frozen=True)
class Implementation:
    """`prepare` builds it and returns one call of it: the input's number -> a tensor or several, or nothing.

    Implementations of a case with the same `answer` must give the same tensors on input 0, loosely: nobody is timed doing
    something else. Without `answer` they need only be finite.
    """

    name: str
    prepare: Callable[[], Call]
    answer: str = ""
    unsupported_reason: str = ""
    """Why it cannot take part, in words."""
    third_party: bool = False
    """Somebody else's code: where it fails it is left out with what it said; where ours fails, so does the contest."""
    gflop: float | None = None
    """Billions of operations a call, where a share of the machine's peak means something."""


@dataclass(frozen=True)
class Case:
    """Implementations side by side. The first that can take part is what the others' times are divided by."""

    labels: Row
    implementations: Sequence[Implementation]
    tolerance: float = 0.02
    """Largest |a - b| / |b|, as norms, between answers that should be the same."""


def run_case(
    case: Case, rounds: int, device: torch.device, peaks: Peaks, on_turn: Callable[[str], None] = lambda what: None
) -> list[Row]:
    """Labels and figures, a row an implementation; one that cannot take part has a reason in place of figures.

    Columns: the labels, "implementation", "ms" (median), "ratio" (median of the ratios to the first, round by round),
    "peak_mib" (memory beyond what was held before the call), "of_peak" (share of the measured matrix product peak),
    "left_out".

    Raises:
        RuntimeError: two that should give the same answer do not.
    """
    calls, left_out = _prepare(case)
    _compare_answers(case, calls, left_out)
    by_name = {implementation.name: implementation for implementation in case.implementations}
    times = take_turns(calls, rounds, device, on_turn=lambda: on_turn(_describe(case.labels))) if calls else {}
    rows = []
    for name, implementation in by_name.items():
        if name in left_out:
            rows.append(case.labels | {"implementation": name, "left_out": left_out[name]})
            continue
        ms = statistics.median(times[name])
        first = next(iter(times.values()))
        row = case.labels | {"implementation": name, "ms": _three(ms), "ratio": _three(ratio(times[name], first))}
        row["peak_mib"] = _three(peak_bytes(lambda call=calls[name]: call(0), device) / 2**20)
        if implementation.gflop is not None:
            row["of_peak"] = round(implementation.gflop / ms * 1e3 / peaks.matmul_gflops, 3)
        rows.append(row)
    calls.clear()
    free(device)
    return rows


def run_cases(
    cases: Iterable[Case],
    rounds: int,
    device: torch.device,
    peaks: Peaks,
    minutes: float = 0,
    on_turn: Callable[[str], None] = lambda what: None,
) -> Iterator[list[Row]]:
    """The rows of case after case; when the `minutes` are up (0: never), one row says so for each that is left."""
    begun = monotonic()
    for case in cases:
        if minutes and monotonic() - begun > 60 * minutes:
            yield [case.labels | {"implementation": "all", "left_out": f"{minutes:g} minutes were up"}]
        else:
            yield run_case(case, rounds, device, peaks, on_turn)


def free(device: torch.device) -> None:
    """Let go of what the last case held."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _prepare(case: Case) -> tuple[dict[str, Call], dict[str, str]]:
    calls, left_out = {}, {}
    for implementation in case.implementations:
        if implementation.unsupported_reason:
            left_out[implementation.name] = implementation.unsupported_reason
            continue
        torch.manual_seed(SEED)
        try:
            calls[implementation.name] = implementation.prepare()
        except Exception as error:
            left_out[implementation.name] = _reason(implementation, error)
    return calls, left_out


def _compare_answers(case: Case, calls: dict[str, Call], left_out: dict[str, str]) -> None:
    """Everybody's first call against the first one with the same answer; who runs out of memory leaves `calls`."""
    references: dict[str, tuple[str, list[Tensor]]] = {}
    for implementation in case.implementations:
        name = implementation.name
        if name not in calls:
            continue
        try:
            answer = _tensors(calls[name](0))
        except Exception as error:
            del calls[name]
            left_out[name] = _reason(implementation, error)
            continue
        if not all(tensor.isfinite().all() for tensor in answer):
            raise RuntimeError(f"{_describe(case.labels)}: {name} gives numbers that are not finite")
        if not implementation.answer:
            continue
        other, expected = references.setdefault(implementation.answer, (name, answer))
        for a, b in zip(answer, expected, strict=True):
            error = float((a - b).norm() / b.norm())
            if not (a.shape == b.shape and error <= case.tolerance):
                raise RuntimeError(
                    f"{_describe(case.labels)}: {name} {tuple(a.shape)} and {other} {tuple(b.shape)} should compute "
                    f"the same and differ by {error:.2g} of it, more than {case.tolerance:g}"
                )


def _reason(implementation: Implementation, error: Exception) -> str:
    """Why it failed, in a line; raised on if that is our fault."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if not implementation.third_party:
        raise error
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _tensors(answer: Any) -> list[Tensor]:
    """What a call gave, as float32 copies."""
    tensors = [answer] if isinstance(answer, Tensor) else list(answer or ())
    return [tensor.detach().float().clone() for tensor in tensors]


def _describe(labels: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def _three(value: float) -> float:
    """To three significant digits, and to the unit above a thousand."""
    return float(f"{value:.3g}") if value < 1000 else float(round(value))
