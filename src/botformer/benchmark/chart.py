"""The figures of a benchmark's receipt as an image: one row per case, bars of time beside bars of memory."""

import json
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from botformer.errors import InputError
from botformer.plots import style

_BAR_INCHES = 0.24
_TITLE_CHARACTERS = 95  # per line
_LEGEND = "blue: our attention, and networks with it"


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
    figure = style.new_figure(0.9 + sum(0.9 + _BAR_INCHES * count for count in bars))
    grid: Any = figure.subplots(
        max(len(cases), 1), 2, squeeze=False, sharey="row", height_ratios=[2 + count for count in bars] or [1]
    )
    for axes, (title, rows) in zip(grid, cases, strict=True):
        _draw_bars(axes[0], rows, "ms", f"{title}\ntime per call, ms")
        _draw_bars(axes[1], rows, "peak_mib", "\npeak memory, MiB")
        axes[1].tick_params(labelleft=False)
    title, _, setting = content["title"].partition(" (")
    figure.suptitle(
        "\n".join([*textwrap.wrap(title, _TITLE_CHARACTERS), *([f"({setting}"] if setting else [])]),
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
        color=style.INK,
        parse_math=False,
    )
    figure.supxlabel(_LEGEND, x=0.01, ha="left", fontsize=9, color=style.FAINT)
    style.save(figure, out)


def _cases(figures: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows with figures by case: a case is the values of the columns before "implementation"."""
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in figures:
        if "ms" in row:
            names = list(row)
            labels = names[: names.index("implementation")]
            words = (_label(name, row[name]) for name in labels)
            cases.setdefault(", ".join(words), []).append(row)
    return list(cases.items())


def _label(name: str, value: Any) -> str:
    if name == "pass":
        return "both passes" if value == "both" else f"{value} pass"
    if name == "px":
        return f"{value} px"
    return str(value) if name in ("mode", "group") else f"{name} {value}"


def _draw_bars(axes: Axes, rows: list[dict[str, Any]], key: str, title: str) -> None:
    style.quiet(axes, title)
    names, values = [row["implementation"] for row in rows], [row.get(key, 0) for row in rows]
    colours = [style.LINES[0] if _is_ours(name) else style.FAINT for name in names]
    axes.barh(names, values, color=colours, height=0.7)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top; both panels share the axis
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 1.15 * max(values) or 1)
    for y, value in enumerate(values):
        axes.annotate(
            f"{value:g}" if key in rows[y] else "",
            (value, y),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=style.INK,
        )


def _is_ours(implementation: str) -> bool:
    """Whether a bar shows our attention or a network with it, for its colour."""
    if "attention of" in implementation or implementation.startswith("loader"):
        return False
    return any(word in implementation for word in ("ours", "converted", "botnet_", "botnet50"))
