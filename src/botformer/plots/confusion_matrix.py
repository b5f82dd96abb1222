"""The confusion matrix: a table with counts for up to 20 classes, a heatmap and a list for more."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from botformer.plots import style

# White to dark blue: the value is in the lightness alone.
_SHADES = LinearSegmentedColormap.from_list("botformer", ["#ffffff", "#9ecbe8", "#0072b2", "#062f4f"])
_SCALE = "darkness: square root of the fraction of a row"  # so a confusion of 4 % looks like 20 %
_MAX_TABLE_CLASSES = 20
_MAX_HEATMAP_CELLS = 250  # per side; more would be smaller than a pixel of the report
_WORST = 15


def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], out: Path) -> None:
    """Draw a confusion matrix (K, K) of counts, rows the truth and columns the prediction, K of 2 or more, as PNG.

    Colours show fractions of a row, so that rare classes look like frequent ones.
    """
    assert matrix.ndim == 2, matrix.shape
    assert matrix.shape[0] == matrix.shape[1] == len(class_names) >= 2, (matrix.shape, len(class_names))
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    total, correct = int(matrix.sum()), int(np.trace(matrix))
    title = f"{correct:,} of {total:,} correct ({correct / total:.1%})" if total else "nothing was evaluated"
    if len(class_names) <= _MAX_TABLE_CLASSES:
        _draw_table(matrix, fractions, class_names, title, out)
    else:
        _draw_heatmap(matrix, fractions, class_names, title, out)


def _draw_table(matrix: np.ndarray, fractions: np.ndarray, names: Sequence[str], title: str, out: Path) -> None:
    count = len(names)
    side = float(np.clip(0.62 * count, 3.2, 8.2))
    figure = style.new_figure(side)
    axes = figure.subplots()
    style.bare(axes, title)
    axes.imshow(np.sqrt(fractions), cmap=_SHADES, vmin=0, vmax=1)
    size = 10 if count <= 12 else 7
    for row, column in np.ndindex(count, count):
        if matrix[row, column]:
            colour = "white" if fractions[row, column] > 0.25 else style.INK
            text = f"{int(matrix[row, column]):,}" if count <= 12 else _short(int(matrix[row, column]))
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    shown = [style.shorten(name, 18) for name in names]
    steep = 0 if max(map(len, shown)) <= 3 else 90
    axes.set_xticks(range(count), shown, fontsize=9, rotation=steep, color=style.INK, parse_math=False)
    axes.set_yticks(range(count), shown, fontsize=9, color=style.INK, parse_math=False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=style.RULE, linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel(f"prediction\n{_SCALE}", fontsize=8.5, color=style.FAINT)
    axes.set_ylabel("truth", fontsize=9, color=style.FAINT)
    style.save(figure, out)


def _draw_heatmap(matrix: np.ndarray, fractions: np.ndarray, names: Sequence[str], title: str, out: Path) -> None:
    figure = style.new_figure(5.2)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    style.bare(left, title)
    block = -(-len(names) // _MAX_HEATMAP_CELLS)
    extent = (-0.5, len(names) - 0.5, len(names) - 0.5, -0.5)
    left.imshow(np.sqrt(_largest_of_blocks(fractions, block)), cmap=_SHADES, vmin=0, vmax=1, extent=extent)
    left.spines[:].set_visible(True)
    left.spines[:].set_color(style.RULE)
    cell = f"a point is the largest of {block} x {block} cells; " if block > 1 else ""
    left.set_xlabel(f"prediction\n{cell}{_SCALE}", fontsize=8.5, color=style.FAINT)
    left.set_ylabel("truth", fontsize=9, color=style.FAINT)
    _list_worst(right, matrix, fractions, names)
    style.save(figure, out)


def _list_worst(axes: Axes, matrix: np.ndarray, fractions: np.ndarray, names: Sequence[str]) -> None:
    style.bare(axes, "most frequent confusions")
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:_WORST]
    worst = [divmod(int(index), len(names)) for index in order if errors.flat[index]]
    if not worst:
        axes.text(0, 0.95, "none", transform=axes.transAxes, fontsize=9, color=style.FAINT)
    for line, (truth, prediction) in enumerate(worst):
        y = 0.97 - line * 0.066
        text = f"{style.shorten(names[truth], 17)} \N{RIGHTWARDS ARROW} {style.shorten(names[prediction], 17)}"
        numbers = f"{int(matrix[truth, prediction]):,}  ({fractions[truth, prediction]:.0%})"
        place = {"transform": axes.transAxes, "va": "center", "fontsize": 9}
        axes.text(0, y, text, color=style.INK, parse_math=False, **place)
        axes.text(1, y, numbers, color=style.FAINT, ha="right", **place)


def _largest_of_blocks(fractions: np.ndarray, block: int) -> np.ndarray:
    """(K, K) to (ceil(K / block), ceil(K / block)): a single confusion among 1000 classes must stay visible."""
    short = -len(fractions) % block
    padded = np.pad(fractions, (0, short))
    blocks = len(padded) // block
    return padded.reshape(blocks, block, blocks, block).max(axis=(1, 3))


def _short(count: int) -> str:
    return f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"
