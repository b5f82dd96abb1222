"""The records of a run -> one image: losses, learning rate and evaluation metrics over the run."""

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from botformer.plots import style

Records = list[dict[str, Any]]
# A training record's other numbers are losses.
_NOT_LOSSES = {"step", "epoch", "loss", "lr", "images_per_s", "waited_s", "memory_mb"}


def draw_curves(records: Records, out: Path, shown: Collection[str] | None = None) -> None:
    """Draw the records of a run as a PNG.

    A record is {"kind": "train", "step", "epoch", "loss", "lr", ...} or {"kind": "evaluation", "step",
    "epoch", metric: value, ...}; a training record's other numbers, besides speed and memory, are further losses.
    `epoch` counts epochs done, with a fraction. Null stands for a number that is not finite. Where a step is recorded
    twice, the later record counts. Of the metrics only those in `shown` are drawn; None: all.
    """
    train, evaluation = _of_kind(records, "train"), _of_kind(records, "evaluation")
    if shown is not None:
        keep = {"kind", "step", "epoch", *shown}
        evaluation = [{name: record[name] for name in record if name in keep} for record in evaluation]

    panels = _metric_panels(evaluation)
    figure = style.new_figure(1.0 + 2.1 * (2 + len(panels)))
    axes = figure.subplots(2 + len(panels), 1, sharex=True, squeeze=False)[:, 0]
    _draw_losses(axes[0], train, evaluation)
    _draw_learning_rate(axes[1], train)
    for panel, names in zip(axes[2:], panels, strict=True):
        _draw_metrics(panel, evaluation, names)
    axes[-1].set_xlabel("epoch", fontsize=9, color=style.INK)
    last = max((record["epoch"] for record in train + evaluation), default=0)
    axes[-1].set_xlim(0, 1.01 * last if last > 0 else 1)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=last >= 4, nbins=10))
    style.save(figure, out)


def _of_kind(records: Records, kind: str) -> Records:
    latest = {record["step"]: record for record in records if record["kind"] == kind}
    return [latest[step] for step in sorted(latest)]


def _series(records: Records, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values, each (n,) float, of the records that have this number; NaN, a gap, where it is not finite."""
    having = [record for record in records if record.get(name, "") is None or _is_number(record.get(name))]
    x = np.array([record["epoch"] for record in having], dtype=float)
    y = np.array([np.nan if record[name] is None else record[name] for record in having], dtype=float)
    y[~np.isfinite(y)] = np.nan
    return x, y


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(records: Records) -> list[str]:
    """Names of the numbers in the records, in order of appearance."""
    seen = {name: None for record in records for name, value in record.items() if _is_number(value)}
    return [name for name in seen if name not in ("step", "epoch")]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over about a thirtieth of the curve around each point; shorter at the ends, gaps stay gaps."""
    reach = len(values) // 60
    smooth = np.full(len(values), np.nan)
    for index in np.flatnonzero(np.isfinite(values)):
        smooth[index] = np.nanmean(values[max(0, index - reach) : index + reach + 1])
    return smooth


def _draw_losses(axes: Axes, train: Records, evaluation: Records) -> None:
    style.quiet(axes, "loss")
    parts = [name for name in _names(train) if name not in _NOT_LOSSES]
    for index, name in enumerate(["loss", *parts]):
        x, y = _series(train, name)
        if not np.isfinite(y).any():
            continue
        colour, smooth = style.LINES[index % len(style.LINES)], _smooth(y)
        if name == "loss" and len(y) >= 80:  # fewer points are hardly smoothed
            axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
        label = f"{'training' if name == 'loss' else name}  {_last(smooth)}"
        _line(axes, x, smooth, colour, index // len(style.LINES), label)
    for name, marker in zip(_evaluation_losses(evaluation), itertools.cycle("osv^D"), strict=False):
        x, y = _series(evaluation, name)
        if np.isfinite(y).any():
            label = f"evaluation{'' if name == 'loss' else ', ' + name}  {_last(y)}"
            axes.plot(x, y, marker, color=style.INK, markersize=4, label=label)
    _limit_outliers(axes, [_series(train, name)[1] for name in ["loss", *parts]])
    _finish(axes, "no training step recorded yet")


def _evaluation_losses(evaluation: Records) -> list[str]:
    return [name for name in _names(evaluation) if name.endswith("loss")]


def _draw_learning_rate(axes: Axes, train: Records) -> None:
    style.quiet(axes, "learning rate")
    x, y = _series(train, "lr")
    if np.isfinite(y).any():
        _line(axes, x, y, style.LINES[0], 0, "")
        axes.set_ylim(bottom=0)
    _finish(axes, "no training step recorded yet")


def _metric_panels(evaluation: Records) -> list[list[str]]:
    """Metrics that are fractions (0 to 1) stand in one panel, every other one in its own; at least one panel."""
    no_curve = {"images", *_evaluation_losses(evaluation)}  # how many were counted is no metric
    names = [name for name in _names(evaluation) if name not in no_curve]
    fractions = [name for name in names if _within_0_and_1(_series(evaluation, name)[1])]
    panels = [fractions] if fractions or not names else []
    return panels + [[name] for name in names if name not in fractions]


def _within_0_and_1(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return bool(((finite >= 0) & (finite <= 1)).all())


def _draw_metrics(axes: Axes, evaluation: Records, names: list[str]) -> None:
    style.quiet(axes, names[0] if len(names) == 1 else "evaluation")
    for index, name in enumerate(names):
        x, y = _series(evaluation, name)
        colour = style.LINES[index % len(style.LINES)]
        if np.isfinite(y).any():
            _line(axes, x, y, colour, index // len(style.LINES), f"{name}  {_last(y)}", marker="o")
    _finish(axes, "not evaluated yet")


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, dash: int, label: str, marker: str = "") -> None:
    lonely = np.isfinite(y).sum() == 1  # a line through one point would be invisible
    axes.plot(
        x,
        y,
        color=colour,
        linestyle=style.DASHES[dash % len(style.DASHES)],
        linewidth=1.8,
        marker="o" if lonely else marker,
        markersize=4,
        label=label,
        clip_on=not (lonely or marker),
    )


def _last(values: np.ndarray) -> str:
    return f"{values[np.isfinite(values)][-1]:.4g}"


def _limit_outliers(axes: Axes, losses: list[np.ndarray]) -> None:
    """Start at zero where losses do, and keep the few huge ones of the first steps from flattening the rest."""
    values = np.concatenate(losses)
    values = values[np.isfinite(values)]
    if len(values) and values.min() >= 0:
        axes.set_ylim(bottom=0)
    if len(values) >= 80:
        most, largest = np.quantile(values, 0.99), values.max()
        if largest > 3 * most > 0:
            axes.set_ylim(top=1.5 * most)
            axes.annotate(
                f"the largest loss, {largest:.3g}, lies above this frame",
                (0.99, 0.92),
                xycoords="axes fraction",
                fontsize=8,
                color=style.FAINT,
                ha="right",
            )


def _finish(axes: Axes, when_empty: str) -> None:
    """A legend with the last values, or the reason why there is nothing to see."""
    if not axes.lines:
        axes.text(0.5, 0.5, when_empty, transform=axes.transAxes, ha="center", va="center", color=style.FAINT)
        axes.set_yticks([])
        return
    if any(line.get_label() and not str(line.get_label()).startswith("_") for line in axes.lines):
        legend = axes.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, labelcolor=style.INK
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
