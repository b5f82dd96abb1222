"""A classifier's prediction: the image, its most probable classes as bars, and the attention of one position."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from botformer.plots import style
from botformer.plots.attention_overlay import draw_layer, mark_query, overlay

_RIGHT, _WRONG, _OTHER = "#0072b2", "#d55e00", "#b8c1ca"
_LAYERS_PER_ROW = 4
_PAIRS_PER_ROW = 4


@dataclass(frozen=True)
class Prediction:
    """One image and what the classifier predicts for it."""

    image: np.ndarray
    """(h, w, 3) uint8, after resizing and cropping: what the attention is drawn over."""
    names: Sequence[str]
    """The most probable classes, best first."""
    probabilities: Sequence[float]
    """Their probabilities, 0 to 1."""
    attention: Sequence[tuple[str, np.ndarray]]
    """A label and the weights (H, W) from the query position to every position, for each layer; may be empty."""
    query_yx: tuple[float, float]
    """The query position, in pixels of the image."""
    truth: str | None = None

    @property
    def is_wrong(self) -> bool:
        return self.truth is not None and self.names[0] != self.truth


def draw_prediction(
    image: np.ndarray,
    names: Sequence[str],
    probabilities: Sequence[float],
    attention: Sequence[tuple[str, np.ndarray]],
    query_yx: tuple[float, float],
    out: Path | BinaryIO,
    truth: str | None = None,
) -> None:
    """Draw one prediction as PNG: the image, its best classes as bars, the attention of each layer over the image.

    The arguments are the fields of `Prediction`. The image may have any aspect ratio.
    """
    prediction = Prediction(image, names, probabilities, attention, query_yx, truth)
    if len(attention) <= 1:
        figure = style.new_figure(_height(image, 3.0 + 0.9 * (not attention), minimum=2.3))
        _draw_top(figure, prediction, with_attention=bool(attention))
    else:
        columns = min(len(attention), _LAYERS_PER_ROW)
        rows = -(-len(attention) // _LAYERS_PER_ROW)
        heights = [_height(image, 3.9, minimum=2.3), rows * _height(image, style.WIDTH / columns, minimum=0.8) + 0.3]
        figure = style.new_figure(sum(heights))
        bands = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_top(bands[0], prediction, with_attention=False)
        _draw_layers(bands[1], prediction, rows, columns)
    style.save(figure, out)


def draw_gallery(predictions: Sequence[Prediction], out: Path) -> None:
    """Draw several predictions as PNG: each image beside the attention of its last layer, the predicted class above.

    At least one prediction.
    """
    assert predictions, "a gallery needs a prediction"
    columns = min(len(predictions), _PAIRS_PER_ROW)
    rows = -(-len(predictions) // columns)
    figure = style.new_figure(rows * 1.52, padding=0.05)
    grid = figure.subfigures(rows, _PAIRS_PER_ROW, squeeze=False, wspace=0.02).ravel()
    for cell, prediction in zip(grid, predictions, strict=False):
        left, right = cell.subplots(1, 2)
        colour = _WRONG if prediction.is_wrong else style.INK
        style.bare(left)
        style.bare(right)
        # Two lines: on one, longer names would run into the neighbour's.
        style.head(left, f"{style.shorten(prediction.names[0], 11)}\n{_percent(prediction.probabilities[0])}", colour)
        left.imshow(prediction.image)
        if prediction.attention:
            overlay(right, prediction.image, prediction.attention[-1][1])
            mark_query(right, prediction.query_yx, 5)
        if prediction.is_wrong:
            style.head(right, f"truth\n{style.shorten(str(prediction.truth), 11)}", colour)
    style.save(figure, out)


def _height(image: np.ndarray, width: float, minimum: float) -> float:
    """Height in inches of a panel of this width with its heading; tall images are drawn narrower."""
    return float(np.clip(width * image.shape[0] / image.shape[1], minimum, 3.6)) + 0.4


def _draw_top(band: Figure | SubFigure, prediction: Prediction, with_attention: bool) -> None:
    """The image, optionally its only attention layer, and the bars, side by side."""
    panels = band.subplots(1, 3 if with_attention else 2, width_ratios=[1, 1, 1] if with_attention else [1.2, 1])
    style.bare(panels[0], _image_title(prediction))
    panels[0].imshow(prediction.image)
    if with_attention:
        _draw_layer(panels[1], prediction, *prediction.attention[0])
    elif prediction.attention:
        mark_query(panels[0], prediction.query_yx, 9)
    _draw_bars(panels[-1], prediction)


def _image_title(prediction: Prediction) -> str:
    if prediction.truth is None:
        return "image"
    return f"image, truth: {style.shorten(prediction.truth, 40)}"


def _draw_bars(axes: Axes, prediction: Prediction) -> None:
    style.bare(axes, "probability")
    count = len(prediction.names)
    axes.set_xlim(0, 1)
    axes.set_ylim(max(count, 5) - 0.3, -0.75)
    for row, (name, probability) in enumerate(zip(prediction.names, prediction.probabilities, strict=True)):
        true = name == prediction.truth
        best = _WRONG if prediction.is_wrong else _RIGHT
        colour = _RIGHT if true else best if row == 0 else _OTHER
        axes.barh(row, 1, height=0.16, color=style.RULE, alpha=0.5)
        axes.barh(row, probability, height=0.16, color=colour)
        label = style.shorten(name, 38) + ("  (truth)" if true else "")
        weight = "bold" if row == 0 else "normal"
        axes.text(0, row - 0.16, label, va="bottom", fontsize=9.5, color=style.INK, weight=weight, parse_math=False)
        axes.text(1, row - 0.16, _percent(probability), va="bottom", ha="right", fontsize=9.5, color=style.FAINT)


def _draw_layers(band: SubFigure, prediction: Prediction, rows: int, columns: int) -> None:
    panels = band.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        style.bare(axes)
    for axes, (label, weights) in zip(panels, prediction.attention, strict=False):
        _draw_layer(axes, prediction, label, weights)
    band.supxlabel("The ring attends to what is bright; each panel has its own scale.", fontsize=8.5, color=style.FAINT)


def _draw_layer(axes: Axes, prediction: Prediction, label: str, weights: np.ndarray) -> None:
    draw_layer(axes, prediction.image, label, weights)
    mark_query(axes, prediction.query_yx, 7)


def _percent(probability: float) -> str:
    if probability >= 0.1:
        return f"{probability:.0%}"
    return f"{probability:.1%}" if probability >= 0.001 else "< 0.1%"
