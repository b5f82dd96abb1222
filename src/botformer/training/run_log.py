"""The record of a run: metrics.jsonl, curves.png, recipe.json, versions.json, TensorBoard, and the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

from botformer.atomic_write import write_json
from botformer.errors import InputError
from botformer.recipes.schema import Recipe
from botformer.training.console import RunConsole
from botformer.training.metrics_file import MetricsFile, Record
from botformer.training.plan import Plan
from botformer.training.resume import as_json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunLog(Protocol):
    def train(self, record: Record) -> None: ...

    def evaluation(self, record: Record) -> None: ...

    def note(self, text: str) -> None:
        """Tell the person in front of the screen."""
        ...

    def sync(self) -> None:
        """Wait until every record is on the disk."""
        ...

    def draw(self) -> None:
        """Draw the curves anew."""
        ...

    def close(self) -> None: ...


class SilentRunLog:
    """The journal of every process but the first."""

    def train(self, record: Record) -> None: ...

    def evaluation(self, record: Record) -> None: ...

    def note(self, text: str) -> None: ...

    def sync(self) -> None: ...

    def draw(self) -> None: ...

    def close(self) -> None: ...


class FileRunLog:
    def __init__(
        self, out: Path, recipe: Recipe, versions: dict[str, str], plan: Plan, step: int, shown: Sequence[str]
    ):
        """Start the record, or continue it at `step`. `shown`: the metrics for the screen and the curves."""
        self._shown = [*shown, *(f"ema_{name}" for name in shown)]
        self._curves = out / "curves.png"
        self._metrics_path = out / "metrics.jsonl"
        self._board = _tensorboard(out, step) if recipe.run.tensorboard else None
        write_json(out / "recipe.json", as_json(recipe))
        write_json(out / "versions.json", versions)
        self._metrics = MetricsFile(self._metrics_path, step)
        self._console = RunConsole(step, plan.last, Console(stderr=True))

    def train(self, record: Record) -> None:
        self._write(record)
        self._console.train(record)

    def evaluation(self, record: Record) -> None:
        self._write(record)
        text = "  ".join(f"{name} {_readable(record[name])}" for name in self._shown if name in record)
        self.note(f"evaluation after step {record['step']} (epoch {record['epoch']:.2f}): {text}")

    def note(self, text: str) -> None:
        self._console.note(text)

    def sync(self) -> None:
        self._metrics.sync()

    def draw(self) -> None:
        from botformer.plots.training_curves import draw_curves  # matplotlib takes a second to import

        draw_curves(self._metrics_path, self._curves, self._shown)

    def close(self) -> None:
        self._console.close()
        self._metrics.close()
        if self._board:
            self._board.close()

    def _write(self, record: Record) -> None:
        self._metrics.write(record)
        if self._board:
            for name, value in record.items():
                if name not in ("kind", "step") and value is not None:
                    self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])


def _readable(value: float | str | None) -> str:
    """Counts are whole; null stands for a number that is not finite."""
    if value is None:
        return "not finite"
    return f"{value:.4f}" if isinstance(value, float) else f"{value}"


def _tensorboard(out: Path, step: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "run.tensorboard needs TensorBoard, which is not installed; pip install 'botformer[log]'"
        ) from error
    return SummaryWriter(str(out / "tensorboard"), purge_step=step + 1)
