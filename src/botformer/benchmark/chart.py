"""The figures of a benchmark's receipt as an image: a row a case, bars of time beside bars of memory."""

import json
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from botformer.errors import InputError
from botformer.plots import style

_BAR_INCHES = 0.24
_TITLE_LETTERS = 95  # a line
_SPEAK_FOR_THEMSELVES = ("mode", "pass", "group")  # labels whose names a title goes without


def draw_benchmark(receipt: Path, out: Path) -> None:
    """Draw results/NAME.json as a PNG.

    Raises `InputError` if the file is not the receipt of a benchmark.
    """
    try:
        content = json.loads(receipt.read_text(encoding="utf-8"))
        cases = _cases(content["figures"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{receipt} is not the receipt of a benchmark ({error!r})") from error
    bars = [len(rows) for _, rows in cases]
    figure = style.new_figure(0.6 + sum(0.75 + _BAR_INCHES * count for count in bars))
    grid: Any = figure.subplots(
        max(len(cases), 1), 2, squeeze=False, sharey="row", height_ratios=[2 + count for count in bars] or [1]
    )
    for axes, (title, rows) in zip(grid, cases, strict=True):
        _draw_bars(axes[0], rows, "ms", f"{title}; ms")
        _draw_bars(axes[1], rows, "peak_mib", "peak memory, MiB")
        axes[1].tick_params(labelleft=False)
    figure.suptitle(
        textwrap.fill(content["title"], _TITLE_LETTERS),
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
        color=style.INK,
        parse_math=False,
    )
    style.save(figure, out)


def _cases(figures: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows with figures by their labels: what stands before "implementation"."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in figures:
        if "ms" in row:
            names = list(row)
            labels = names[: names.index("implementation")]
            words = (str(row[label]) if label in _SPEAK_FOR_THEMSELVES else f"{label} {row[label]}" for label in labels)
            cases.setdefault(", ".join(words), []).append(row)
    return list(cases.items())


def _draw_bars(axes: Axes, rows: list[dict[str, Any]], key: str, title: str) -> None:
    style.quiet(axes, title)
    names, values = [row["implementation"] for row in rows], [row[key] for row in rows]
    colours = [style.LINES[0] if _is_ours(name) else style.FAINT for name in names]
    axes.barh(names, values, color=colours, height=0.7)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top; both panels share the axis
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.15 * max(values))
    for place, value in enumerate(values):
        axes.annotate(
            f"{value:g}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=8, color=style.INK
        )


def _is_ours(implementation: str) -> bool:
    """A BoTNet of ours or our attention, for the colour of a bar; the same network with others' attention is not."""
    return "attention of" not in implementation and any(
        word in implementation for word in ("ours", "adopted", "botnet_", "botnet50")
    )
