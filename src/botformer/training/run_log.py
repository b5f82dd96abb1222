"""The log of a run: metrics.jsonl, curves.png, recipe.json, versions.json, trackers, and the terminal."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from botformer import stored_names
from botformer.atomic_write import write_json, write_text
from botformer.errors import InputError
from botformer.read_file import parse_json, read_text
from botformer.recipes.from_json import flat
from botformer.recipes.schema import Recipe
from botformer.terminal import screen, text_column
from botformer.training.resume import as_json
from botformer.training.schedule import Plan
from botformer.training.task import Batch
from botformer.training.trackers import Trackers

Record = dict[str, Any]
"""`kind` ("train" or "evaluation"), `step` (steps done), `epoch` (epochs done, with a fraction) and numbers."""

SECONDS_BETWEEN_LINES = 30.0


class RunLog(Protocol):
    def train(self, record: Record, kept: bool) -> None:
        """A step, for the terminal; one that is `kept` also for the journal and the trackers."""
        ...

    def evaluation(self, record: Record) -> None: ...

    def note(self, text: str) -> None:
        """Print a line on the terminal."""
        ...

    def evaluating(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """The same batches, with a progress bar while they are taken."""
        ...

    def sync(self) -> None:
        """Wait until every record is on the disk."""
        ...

    def draw(self) -> None:
        """Draw the curves anew."""
        ...

    def close(self) -> None: ...


class SilentRunLog:
    """The log of every process but the first."""

    def train(self, record: Record, kept: bool) -> None: ...

    def evaluation(self, record: Record) -> None: ...

    def note(self, text: str) -> None: ...

    def evaluating(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        return batches

    def sync(self) -> None: ...

    def draw(self) -> None: ...

    def close(self) -> None: ...


class FileRunLog:
    """The log of the first process, in the folder `out` and on the terminal."""

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        versions: dict[str, str],
        plan: Plan,
        step: int,
        evaluated: int,
        shown: Sequence[str],
    ):
        """Start the log, or continue it at `step`, the last evaluation being that of the step `evaluated`. `shown`: the
        metrics for the terminal and the curves."""
        self._shown = [*shown, *(f"ema_{name}" for name in shown)]
        self._curves = out / "curves.png"
        self._metrics_path = out / "metrics.jsonl"
        write_json(out / "recipe.json", as_json(recipe))
        write_json(out / "versions.json", versions)
        known_steps = _last_steps(self._metrics_path) if step else {}
        self._metrics = MetricsFile(self._metrics_path, step, evaluated)
        self._console = RunConsole(step, plan.last, screen(stderr=True))
        config = flat(as_json(recipe))
        self._trackers = Trackers(recipe.run.trackers, out, config, step, known_steps, self.note)

    def train(self, record: Record, kept: bool) -> None:
        if kept:
            self._write(record)
        self._console.train(record)

    def evaluation(self, record: Record) -> None:
        self._write(record)
        text = "  ".join(f"{name} {_readable(record[name])}" for name in self._shown if name in record)
        self.note(f"evaluation after step {record['step']} (epoch {record['epoch']:.2f}): {text}")

    def note(self, text: str) -> None:
        self._console.note(text)

    def evaluating(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        return self._console.evaluating(batches)

    def sync(self) -> None:
        self._metrics.sync()

    def draw(self) -> None:
        from botformer.plots.training_curves import draw_curves  # matplotlib takes a second to import

        draw_curves(read_metrics(self._metrics_path), self._curves, self._shown)

    def close(self) -> None:
        self._console.close()
        self._metrics.close()
        self._trackers.close()

    def _write(self, record: Record) -> None:
        self._metrics.write(record)
        self._trackers.log(record)


class MetricsFile:
    """OUT/metrics.jsonl, to which a run appends."""

    def __init__(self, path: Path, step: int, evaluated: int):
        """Continue the file at `step`: records of later steps are dropped, for those will happen again; and so are
        evaluations of steps after `evaluated`, which the checkpoint does not know of."""
        known = read_metrics(path) if step and path.exists() else []
        last = {"evaluation": evaluated}
        kept = [record for record in known if record["step"] <= last.get(record["kind"], step)]
        write_text(path, "".join(_line(record) for record in kept))
        self._path = path
        self._file = path.open("ab", buffering=0)  # a full disk fails in `write`, and leaves nothing for `close`

    def write(self, record: Record) -> None:
        with self._errors_named():
            self._file.write(_line(record).encode("utf-8", "backslashreplace"))

    def sync(self) -> None:
        with self._errors_named():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """The system does not say of an open file which it is."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def read_metrics(path: Path) -> list[Record]:
    """The records of a run, one JSON object per line. Left out are a last line that is still being written, and the
    null bytes that a power cut may leave at the end.

    Raises `InputError` if the file is missing or another of its lines is not a record.
    """
    try:
        text = read_text(path, errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; a run writes it into its folder") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    whole, _, rest = text.partition("\0")
    lines = (text if rest.strip("\0") else whole).split("\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):  # the last one has no newline yet
        record = _record(line)
        if record is None:
            raise InputError(
                f"{path}, line {number}, is not a record of a run (JSON with kind, step and epoch); delete that line"
            )
        records.append(record)
    return records


def _record(line: str) -> Record | None:
    try:
        record = parse_json(line)
    except ValueError:
        return None
    if (
        isinstance(record, dict)
        and {"kind", "epoch", "step"} <= record.keys()
        and type(record["step"]) is int
        and type(record["epoch"]) in (int, float)
        and all(value is None or type(value) in (int, float) for name, value in record.items() if name != "kind")
    ):
        return stored_names.metrics(record)
    return None


def finite_or_none(values: dict[str, float]) -> dict[str, float | None]:
    """The same numbers with null for what JSON cannot say."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


class RunConsole:
    """What a person sees of a run: progress bars on a terminal, a line now and then anywhere else.

    The first step takes longer than the others (compilation, first touch of memory). It counts neither for the speed
    nor for the time left.
    """

    def __init__(self, first: int, last: int, console: Console, clock: Callable[[], float] = time.monotonic):
        """`first` and `last` are the steps done at the start and at the end."""
        self._last = last
        self._console, self._clock = console, clock
        self._next_line = clock()  # the first step shows at once that the run is alive
        self._rate: float | None = None
        self._timed_from: tuple[int, float] | None = None
        """Steps and time when the first step was done."""
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                text_column("{task.fields[what]}"),
                MofNCompleteColumn(),
                BarColumn(),
                text_column("{task.description}"),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._row = self._bar.add_task("", total=last, completed=first, what="step")
            self._bar.start()

    def train(self, record: Record) -> None:
        speed = self._measure(record)
        if self._bar:
            self._bar.update(self._row, completed=record["step"], description=_numbers(record) + speed)
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + SECONDS_BETWEEN_LINES
            self.note(f"step {record['step']}/{self._last}  {_numbers(record)}{speed}")

    def evaluating(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, with a bar of their own on a terminal."""
        if not self._bar:
            yield from batches
            return
        row = self._bar.add_task("", total=len(batches) if isinstance(batches, Sized) else None, what="evaluation")
        try:
            for batch in batches:
                yield batch
                self._bar.advance(row)
        finally:
            self._bar.remove_task(row)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()

    def _measure(self, record: Record) -> str:
        """Speed and time left as text, which is empty at the first step."""
        if self._timed_from is None:
            self._timed_from = (record["step"], self._clock())
            return ""
        now = record["images_per_s"]
        self._rate = now if self._rate is None else 0.9 * self._rate + 0.1 * now
        step, time_then = self._timed_from
        left = (self._clock() - time_then) / (record["step"] - step) * (self._last - record["step"])
        return f"  {self._rate:.0f} img/s  {timedelta(seconds=round(left))} left"


def _numbers(record: Record) -> str:
    return (
        f"epoch {record['epoch']:.2f}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  {record['memory_mb']:.0f} MB"
    )


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _readable(value: float | str | None) -> str:
    """Counts are whole; null stands for a number that is not finite."""
    if value is None:
        return "not finite"
    return f"{value:.4f}" if isinstance(value, float) else f"{value}"


def _last_steps(path: Path) -> dict[str, int]:
    """Of a journal, by the kind of the records."""
    records = read_metrics(path) if path.exists() else []
    return {record["kind"]: record["step"] for record in sorted(records, key=lambda record: record["step"])}
