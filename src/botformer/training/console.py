"""What a person sees of a run: a progress bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from botformer.training.metrics_file import Record

SECONDS_BETWEEN_LINES = 30.0


class RunConsole:
    def __init__(self, first: int, last: int, console: Console, clock: Callable[[], float] = time.monotonic):
        """`first` and `last` are the steps done at the start and at the end."""
        self._first, self._last = first, last
        self._console, self._clock = console, clock
        self._started = clock()
        self._next_line = self._started  # the first step says at once that the run is alive
        self._rate = 0.0
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console, transient=True)
            self._row = self._bar.add_task("", total=last, completed=first)
            self._bar.start()

    def train(self, record: Record) -> None:
        now = record["images_per_s"]
        self._rate = now if not self._rate else 0.9 * self._rate + 0.1 * now
        if self._bar:
            self._bar.update(self._row, completed=record["step"], description=self._text(record))
        elif self._clock() >= self._next_line:
            self._next_line = self._clock() + SECONDS_BETWEEN_LINES
            self.note(f"step {record['step']}/{self._last}  {self._text(record)}")

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()

    def _text(self, record: Record) -> str:
        done = record["step"] - self._first
        left = (self._clock() - self._started) / done * (self._last - record["step"])
        return (
            f"epoch {record['epoch']:.2f}  loss {record['loss']:.4f}  lr {record['lr']:.2e}  {self._rate:.0f} img/s  "
            f"{record['memory_mb']:.0f} MB  {timedelta(seconds=round(left))} left"
        )
