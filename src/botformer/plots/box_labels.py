"""Names and scores beside boxes, where they fit."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from botformer.plots import style
from botformer.plots.fonts import TextRenderer

_SIZES = (8.0, 6.5)  # points
_WIDEST = 2.0  # of the box
_MOST_OF_ITSELF, _MOST_OF_OTHERS = 0.3, 0.25  # of a box that a label may hide


class Label(NamedTuple):
    wordings: Sequence[str]
    """The best first; shorter ones for less space."""
    box: np.ndarray
    """(4,) xyxy in pixels of the image."""
    colour: str


def write_labels(axes: Axes, labels: Sequence[Label], renderer: TextRenderer) -> None:
    """Write each label at its box, the first ones first: shorter, smaller or not at all where they do not fit.

    No label hides another, or much of a box. The axes must have their final place in the figure.
    """
    frame = np.array(axes.get_window_extent().extents) / renderer.figure.dpi
    boxes = np.array([_on_figure(axes, label.box) for label in labels]).reshape(-1, 4) / renderer.figure.dpi
    taken = np.empty((0, 4))
    for place, label in enumerate(labels):
        for wording, points in ((wording, points) for wording in label.wordings for points in _SIZES):
            em = points / 72
            size = (renderer.width(wording, points) + 0.4 * em, 1.3 * em)
            if size[0] > _WIDEST * (boxes[place, 2] - boxes[place, 0]):
                continue
            spot = _free_spot(boxes, place, size, frame, taken)
            if spot is not None:
                taken = np.vstack([taken, spot])
                _write(spot, wording, points, label.colour, renderer)
                break


def _on_figure(axes: Axes, box: np.ndarray) -> np.ndarray:
    """A box xyxy in pixels of the image -> in pixels of the figure, whose y points up."""
    left, bottom = axes.transData.transform((box[0] - 0.5, box[3] - 0.5))
    right, top = axes.transData.transform((box[2] - 0.5, box[1] - 0.5))
    return np.array([left, bottom, right, top])


def _free_spot(
    boxes: np.ndarray, place: int, size: tuple[float, float], frame: np.ndarray, taken: np.ndarray
) -> np.ndarray | None:
    """Where a label of this (width, height) goes: above the box, in it, below it; None where nothing is free."""
    left, bottom, right, top = boxes[place]
    width, height = size
    corners = (
        (left, top), (left, top - height), (left, bottom - height), (left, bottom),
        (right - width, top), (right - width, top - height), (right - width, bottom - height),
    )  # fmt: skip
    for x, y in corners:
        x = np.clip(x, frame[0], max(frame[0], frame[2] - width))  # along the box's edge into the image
        spot = np.array([x, y, x + width, y + height])
        outside = spot[1] < frame[1] or spot[2] > frame[2] or spot[3] > frame[3]
        if outside or _overlap(spot, taken).any():
            continue
        hidden = _overlap(spot, boxes) / np.maximum(_overlap(boxes, boxes), 1e-9)  # fractions of the boxes
        if hidden[place] <= _MOST_OF_ITSELF and np.delete(hidden, place).max(initial=0) <= _MOST_OF_OTHERS:
            return spot
    return None


def _overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas that rectangles (4,) or (n, 4) and (n, 4) have in common -> (n,)."""
    sides = np.minimum(one[..., 2:], others[:, 2:]) - np.maximum(one[..., :2], others[:, :2])
    return np.prod(np.maximum(sides, 0), axis=1)


def _write(spot: np.ndarray, text: str, points: float, colour: str, renderer: TextRenderer) -> None:
    left, bottom, right, top = spot
    ground = Rectangle((left, bottom), right - left, top - bottom, facecolor=colour, alpha=0.9, zorder=3)
    ground.set_transform(renderer.figure.dpi_scale_trans)
    renderer.figure.add_artist(ground)
    light = np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.45
    base_line = (left + 0.2 * points / 72, bottom + 0.34 * points / 72)
    renderer.write(base_line, text, points, style.INK if light else "white")
