"""The confusion matrix: a table with counts for up to 20 classes, a heatmap and a list for up to 1000."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from botformer.plots import style

# White to dark blue: the value is in the lightness alone.
_SHADES = LinearSegmentedColormap.from_list("botformer", ["#ffffff", "#9ecbe8", "#0072b2", "#062f4f"])
_SCALE = "darkness: square root of the fraction of a row"  # so a confusion of 4 % looks like 20 %
_MAX_TABLE_CLASSES = 20
_MAX_HEATMAP_CLASSES = 1000
_MAX_HEATMAP_CELLS = 250  # per side; more would be smaller than a pixel of the report
_WORST = 15


def draw_confusion(
    truth: np.ndarray, prediction: np.ndarray, images: np.ndarray, class_names: Sequence[str], out: Path
) -> None:
    """Draw a confusion matrix as PNG, of which the cells that are not 0 are given: three int arrays (cells,).

    Rows are the truth and columns the prediction. Colours show fractions of a row, so that rare classes look like
    frequent ones. Beyond 1000 classes it is the part of those that are most often confused.
    """
    assert truth.shape == prediction.shape == images.shape, (truth.shape, prediction.shape, images.shape)
    assert len(class_names) >= 2, class_names
    per_class = np.bincount(truth, images, len(class_names))
    fractions = images / np.maximum(per_class[truth], 1)
    cells = _Cells(truth, prediction, images, fractions)
    total, correct = int(images.sum()), int(images[truth == prediction].sum())
    title = f"{correct:,} of {total:,} correct ({correct / total:.1%})" if total else "nothing was evaluated"
    if len(class_names) <= _MAX_TABLE_CLASSES:
        shown = np.arange(len(class_names))
    elif len(class_names) <= _MAX_HEATMAP_CLASSES:
        _draw_heatmap(cells, class_names, title, out)
        return
    else:
        shown = _most_confused(cells)
        title += f"; the {len(shown)} of {len(class_names):,} classes most often confused"
    _draw_table(cells.part(shown), [class_names[index] for index in shown.tolist()], title, out)


class _Cells(NamedTuple):
    """Cells of a confusion matrix, each (cells,)."""

    truth: np.ndarray
    prediction: np.ndarray
    images: np.ndarray
    fractions: np.ndarray
    """Of the images of the true class."""

    def part(self, classes: np.ndarray) -> "_Cells":
        """The cells between `classes`, which are numbered anew."""
        inside = np.isin(self.truth, classes) & np.isin(self.prediction, classes)
        truth, prediction, images, fractions = (column[inside] for column in self)
        return _Cells(np.searchsorted(classes, truth), np.searchsorted(classes, prediction), images, fractions)

    def worst(self) -> np.ndarray:
        """Indices of the cells with errors, the most frequent first."""
        order = np.argsort(-self.images, kind="stable")
        return order[self.truth[order] != self.prediction[order]]


def _most_confused(cells: _Cells) -> np.ndarray:
    """The classes, in order, of the most frequent errors; the first ones where there are too few."""
    found: dict[int, None] = {}
    for cell in cells.worst():
        pair = dict.fromkeys((int(cells.truth[cell]), int(cells.prediction[cell])))
        if len(found | pair) > _MAX_TABLE_CLASSES:
            break
        found |= pair
    return np.array(sorted(found or range(_MAX_TABLE_CLASSES)))


def _table(cells: _Cells, values: np.ndarray, count: int) -> np.ndarray:
    table = np.zeros((count, count), values.dtype)
    table[cells.truth, cells.prediction] = values
    return table


def _draw_table(cells: _Cells, names: Sequence[str], title: str, out: Path) -> None:
    count = len(names)
    matrix, fractions = _table(cells, cells.images, count), _table(cells, cells.fractions, count)
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


def _draw_heatmap(cells: _Cells, names: Sequence[str], title: str, out: Path) -> None:
    figure = style.new_figure(5.2)
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    style.bare(left, title)
    block = -(-len(names) // _MAX_HEATMAP_CELLS)
    extent = (-0.5, len(names) - 0.5, len(names) - 0.5, -0.5)
    left.imshow(np.sqrt(_largest_of_blocks(cells, len(names), block)), cmap=_SHADES, vmin=0, vmax=1, extent=extent)
    left.spines[:].set_visible(True)
    left.spines[:].set_color(style.RULE)
    cell = f"a point is the largest of {block} x {block} cells; " if block > 1 else ""
    left.set_xlabel(f"prediction\n{cell}{_SCALE}", fontsize=8.5, color=style.FAINT)
    left.set_ylabel("truth", fontsize=9, color=style.FAINT)
    _list_worst(right, cells, names)
    style.save(figure, out)


def _list_worst(axes: Axes, cells: _Cells, names: Sequence[str]) -> None:
    style.bare(axes, "most frequent confusions")
    worst = cells.worst()[:_WORST]
    if not len(worst):
        axes.text(0, 0.95, "none", transform=axes.transAxes, fontsize=9, color=style.FAINT)
    for line, cell in enumerate(worst.tolist()):
        y = 0.97 - line * 0.066
        truth, prediction = names[int(cells.truth[cell])], names[int(cells.prediction[cell])]
        text = f"{style.shorten(truth, 17)} \N{RIGHTWARDS ARROW} {style.shorten(prediction, 17)}"
        numbers = f"{int(cells.images[cell]):,}  ({cells.fractions[cell]:.0%})"
        place = {"transform": axes.transAxes, "va": "center", "fontsize": 9}
        axes.text(0, y, text, color=style.INK, parse_math=False, **place)
        axes.text(1, y, numbers, color=style.FAINT, ha="right", **place)


def _largest_of_blocks(cells: _Cells, count: int, block: int) -> np.ndarray:
    """(ceil(K / block), ceil(K / block)): a single confusion among 1000 classes must stay visible."""
    blocks = -(-count // block)
    largest = np.zeros((blocks, blocks))
    np.maximum.at(largest, (cells.truth // block, cells.prediction // block), cells.fractions)
    return largest


def _short(count: int) -> str:
    return f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"
