"""Implementations of one case: checked against each other, timed in turns, their memory measured."""

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
    """One way to compute a case. `prepare` builds it and returns its call: input number -> tensor, several, or none."""

    name: str
    prepare: Callable[[], Call]
    output: str = ""
    """What it computes. Implementations of a case with the same `output` must return equal tensors for input 0, within
    the case's tolerance; without a name the tensors need only be finite."""
    unsupported_reason: str = ""
    """Why it cannot run this case; empty if it can."""
    third_party: bool = False
    """Code of another project: an exception leaves it out, with the message. An exception in our code is raised."""
    gflop: float | None = None
    """Billions of operations per call, where a fraction of the machine's peak is meaningful."""


@dataclass(frozen=True)
class Case:
    """Implementations to compare. Ratios are to the first one that runs."""

    labels: Row
    implementations: Sequence[Implementation]
    tolerance: float = 0.02
    """Largest |a - b| / |b|, as norms, between outputs that should be equal."""


def run_case(
    case: Case, rounds: int, device: torch.device, peaks: Peaks, on_turn: Callable[[str], None] = lambda case: None
) -> list[Row]:
    """One row per implementation.

    Columns: the labels, "implementation", "ms" (median), "ratio" (to the first, median of the ratios within a round),
    "peak_mib" (peak memory beyond what was allocated before the call), "of_peak" (fraction of the measured peak of
    matrix products). An implementation that cannot run has "left_out", the reason, instead of figures.

    Args:
        rounds: turns of each implementation.
        peaks: of `device`, measured.
        on_turn: called with the case's labels after every turn.

    Raises:
        RuntimeError: outputs that should be equal differ, or are not finite.
    """
    calls, left_out = _prepare(case)
    _compare_outputs(case, calls, left_out)
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
    on_turn: Callable[[str], None] = lambda case: None,
) -> Iterator[list[Row]]:
    """The rows of each case. After `minutes` (0: no limit) no further case begins; one row per case left says so."""
    begun = monotonic()
    for case in cases:
        if minutes and monotonic() - begun > 60 * minutes:
            yield [case.labels | {"implementation": "all", "left_out": f"the limit of {minutes:g} minutes was reached"}]
        else:
            yield run_case(case, rounds, device, peaks, on_turn)


def free(device: torch.device) -> None:
    """Release the memory of the last case."""
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


def _compare_outputs(case: Case, calls: dict[str, Call], left_out: dict[str, str]) -> None:
    """Call each implementation once and compare equal outputs; one that fails moves from `calls` to `left_out`."""
    references: dict[str, tuple[str, list[Tensor]]] = {}
    for implementation in case.implementations:
        name = implementation.name
        if name not in calls:
            continue
        try:
            torch.manual_seed(SEED)  # for implementations that sample
            output = _tensors(calls[name](0))
        except Exception as error:
            del calls[name]
            left_out[name] = _reason(implementation, error)
            continue
        if not all(tensor.isfinite().all() for tensor in output):
            raise RuntimeError(f"{_describe(case.labels)}: {name} returns numbers that are not finite")
        if not implementation.output:
            continue
        other, expected = references.setdefault(implementation.output, (name, output))
        for a, b in zip(output, expected, strict=True):
            error = float((a - b).norm() / b.norm())
            if not (a.shape == b.shape and error <= case.tolerance):
                raise RuntimeError(
                    f"{_describe(case.labels)}: {name} {tuple(a.shape)} and {other} {tuple(b.shape)} should compute "
                    f"the same and differ by {error:.2g} of the norm, more than {case.tolerance:g}"
                )


def _reason(implementation: Implementation, error: Exception) -> str:
    """Why it failed, in one line. Raises the error again if it is one of our code."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if not implementation.third_party:
        raise error
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _tensors(output: Any) -> list[Tensor]:
    """The output of a call as float32 copies."""
    tensors = [output] if isinstance(output, Tensor) else list(output or ())
    return [tensor.detach().float().clone() for tensor in tensors]


def _describe(labels: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def _three(value: float) -> float:
    """Three significant digits; whole numbers above a thousand."""
    return float(f"{value:.3g}") if value < 1000 else float(round(value))
