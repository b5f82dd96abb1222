"""Implementations of one case: checked against each other, timed in turns, their memory measured."""

import gc
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from botformer.benchmark.memory import peak_bytes
from botformer.benchmark.roofline import Peaks
from botformer.benchmark.timing import Call, ratio, take_turns

SEED = 0
WRONG, FAILED = "WRONG: ", "failed: "
"""How the reason begins for which one of our implementations was left out; other reasons are no fault of ours."""
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
    """Code of another project."""
    gflop: float | None = None
    """Billions of operations per call, where a fraction of the machine's peak is meaningful."""
    allocates: bool = True
    """Its calls allocate the memory that they use. A CUDA graph has it from when it was captured."""


@dataclass(frozen=True)
class Case:
    """Implementations to compare. Ratios are to the first one that runs, and so are results that should be equal."""

    labels: Row
    implementations: Sequence[Implementation]
    tolerance: float = 0.02
    """Largest |a - b| / |b|, as norms, between outputs that should be equal."""
    compared_within: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Where outputs are compared, such as in full precision."""
    least_s: float = 0
    """Seconds that the case takes at least; it does not begin where fewer are left."""

    def describe(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.labels.items())


class DeviceLostError(RuntimeError):
    """Nothing can run on the device in this process any more, as after an illegal memory access."""

    def __init__(self, row: Row) -> None:
        super().__init__(row["left_out"])
        self.row = row
        """Of the implementation whose call it was."""


def run_case(
    case: Case,
    rounds: int,
    device: torch.device,
    peaks: Peaks,
    on_turn: Callable[[str], None] = lambda case: None,
    seconds: float = 0,
) -> list[Row]:
    """One row per implementation.

    Columns: the labels, "implementation", "ms" (median), "ratio" (to the first, median of the ratios within a round),
    "peak_mib" (peak memory beyond what was allocated before the call), "tflops" (10^12 operations per second),
    "of_peak" (fraction of the measured peak of matrix products), "rounds" if there were fewer than asked for.
    An implementation that cannot run, fails, or returns something else than it should has "left_out", the reason,
    instead of figures.

    Args:
        rounds: turns of each implementation.
        peaks: of `device`, measured.
        on_turn: called with the case's labels after every turn.
        seconds: see `take_turns`.

    Raises:
        DeviceLostError: an implementation left the device unusable for this process.
    """
    running = _Running(case, device)
    running.prepare()
    running.compare()
    times = running.time(rounds, seconds, lambda: on_turn(case.describe()))
    peak_mib = running.peak_mib()
    rows = []
    for implementation in case.implementations:
        row = case.labels | {"implementation": implementation.name}
        if implementation.name in running.left_out:
            rows.append(row | {"left_out": running.left_out[implementation.name]})
            continue
        own, first = times[implementation.name], next(times[name] for name in times if name in running.calls)
        ms = statistics.median(own)
        row |= {"ms": _three(ms), "ratio": _three(ratio(own, first))}
        if implementation.name in peak_mib:
            row["peak_mib"] = _three(peak_mib[implementation.name])
        if implementation.gflop is not None:
            row["tflops"] = _three(implementation.gflop / ms)
            row["of_peak"] = round(implementation.gflop / ms * 1e3 / peaks.matmul_gflops, 3)
        if len(own) < rounds:
            row["rounds"] = len(own)
        rows.append(row)
    running.calls.clear()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # after eight versions of a function the compiler silently runs it uncompiled
    free(device)
    return rows


def free(device: torch.device) -> None:
    """Release the memory of what was dropped."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class _Running:
    """The implementations of a case that run, and why the others do not."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.case, self.device = case, device
        self.by_name = {implementation.name: implementation for implementation in case.implementations}
        self.calls: dict[str, Call] = {}
        self.left_out: dict[str, str] = {}

    def prepare(self) -> None:
        for name, implementation in self.by_name.items():
            if implementation.unsupported_reason:
                self.left_out[name] = implementation.unsupported_reason
                continue
            torch.manual_seed(SEED)
            try:
                self.calls[name] = implementation.prepare()
            except Exception as error:
                self._leave_out(name, error)

    def compare(self) -> None:
        """Call each implementation once and compare outputs that should be equal."""
        references: dict[str, tuple[str, list[Tensor]]] = {}
        for name in list(self.calls):
            try:
                with self.case.compared_within():
                    wrong = self._compare(name, references)
            except Exception as error:
                self._leave_out(name, error)
                continue
            if wrong:
                del self.calls[name]
                self.left_out[name] = wrong if self.by_name[name].third_party else WRONG + wrong

    def time(self, rounds: int, seconds: float, on_turn: Callable[[], None]) -> dict[str, list[float]]:
        """Milliseconds by name, as `take_turns`. If one fails, the others begin again without it."""
        while self.calls:
            latest = ""

            def noted(name: str, call: Call) -> Call:
                def noted_call(number: int) -> Any:
                    nonlocal latest
                    latest = name
                    return call(number)

                return noted_call

            calls = {name: noted(name, call) for name, call in self.calls.items()}
            try:
                return take_turns(calls, rounds, self.device, on_turn, seconds)
            except Exception as error:
                if not latest:
                    raise
                calls.clear()
                self._leave_out(latest, error)
        return {}

    def peak_mib(self) -> dict[str, float]:
        peaks = {}
        for name, call in list(self.calls.items()):
            if self.by_name[name].allocates:
                try:
                    peaks[name] = peak_bytes(lambda call=call: call(0), self.device) / 2**20
                except Exception as error:
                    self._leave_out(name, error)
        return peaks

    def _compare(self, name: str, references: dict[str, tuple[str, list[Tensor]]]) -> str:
        """What is wrong with the output for input 0, in words; the first of its kind becomes the reference."""
        torch.manual_seed(SEED)  # for implementations that sample
        output = _tensors(self.calls[name](0))
        if not all(tensor.isfinite().all() for tensor in output):
            return "it returns numbers that are not finite"
        kind = self.by_name[name].output
        if not kind:
            return ""
        other, expected = references.setdefault(kind, (name, output))
        shapes, expected_shapes = ([tuple(tensor.shape) for tensor in tensors] for tensors in (output, expected))
        if shapes != expected_shapes:
            return f"it returns {shapes}, {other} {expected_shapes}; they should compute the same"
        for index, (a, b) in enumerate(zip(output, expected, strict=True)):
            error = float((a - b).norm() / b.norm())
            if not error <= self.case.tolerance:
                return (
                    f"it and {other} should compute the same, and output {index} differs by {error:.2g} of the norm, "
                    f"more than {self.case.tolerance:g}"
                )
        return ""

    def _leave_out(self, name: str, error: Exception) -> None:
        """Note why it failed, in one line, and free its memory."""
        self.calls.pop(name, None)
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError):
            reason = "out of memory"
        elif not self.by_name[name].third_party:
            reason = FAILED + reason
        self.left_out[name] = reason
        if device_is_lost(self.device, error):
            raise DeviceLostError(self.case.labels | {"implementation": name, "left_out": reason}) from error
        free(self.device)


def device_is_lost(device: torch.device, error: Exception) -> bool:
    """After most errors of CUDA every further call of the process fails."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error):
        return True
    if device.type == "cuda":
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:
            return True
    return False


def _tensors(output: Any) -> list[Tensor]:
    """The output of a call as float32 copies."""
    tensors = [output] if isinstance(output, Tensor) else list(output or ())
    return [tensor.detach().float().clone() for tensor in tensors]


def _three(value: float) -> float:
    """Three significant digits; whole numbers above a thousand."""
    return float(f"{value:.3g}") if value < 1000 else float(round(value))
