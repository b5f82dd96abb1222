"""Objects on an image: masks, boxes, key points, names and scores, many small ones as clear as a few large ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from botformer.plots import style
from botformer.plots.box_labels import Label, write_labels
from botformer.plots.fonts import TextRenderer

# Bright enough for a dark micrograph, deep enough for snow; neighbours in the list differ in lightness too.
_COLOURS = (
    "#4fb8ff", "#ff9f1c", "#2fd48a", "#ff74c8", "#f7ec4a", "#ff5a4d",
    "#b4f03c", "#45e6e6", "#a98bff", "#d9a066", "#5c7cff", "#f2b8ff",
)  # fmt: skip
_COLOURS_OF_INSTANCES = 8  # without violet, the colour of stained nuclei
_CROWD = 12
"""More objects than this, and boxes around masks, or scores without names, would hide the image."""
_DARK, _BRIGHTEST = 128, 8


@dataclass(frozen=True)
class Shown:
    """An image and the objects on it: those that were detected, or those that are there."""

    image: np.ndarray
    """(h, w, 3) uint8."""
    boxes: np.ndarray
    """(n, 4) xyxy, in pixels of the image."""
    names: Sequence[str]
    """n categories."""
    scores: np.ndarray | None = None
    """(n,) from 0 to 1; None for ground truth."""
    masks: Sequence[np.ndarray] | None = None
    """n bool arrays (h, w); None for boxes alone. They are read one at a time."""
    keypoints: np.ndarray | None = None
    """(n, K, 3): x, y in pixels as boxes have them, and v: 2 is visible, 1 hidden, 0 unknown and not drawn."""
    skeleton: Sequence[tuple[int, int]] = ()
    """Pairs of key points, from 0, that a limb joins."""

    def __post_init__(self) -> None:
        assert self.image.ndim == 3, self.image.shape
        assert self.image.shape[2] == 3, self.image.shape
        assert self.image.dtype == np.uint8, self.image.dtype
        assert self.boxes.shape == (len(self.names), 4), (self.boxes.shape, len(self.names))
        assert self.scores is None or len(self.scores) == len(self.names)
        assert self.masks is None or len(self.masks) == len(self.names)
        assert self.keypoints is None or self.keypoints.shape[::2] == (len(self.names), 3), self.keypoints.shape

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]


def colours_of_names(names: Sequence[str]) -> dict[str, str]:
    """A colour per category, where there are several. With one the instances differ instead: an empty table."""
    categories = sorted(set(names))
    if len(categories) < 2:
        return {}
    return {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(categories)}


def draw_image(axes: Axes, image: np.ndarray) -> None:
    """The image (h, w, 3) without a frame; pixel i reaches from i - 0.5 to i + 0.5."""
    style.bare(axes)
    axes.imshow(image, aspect="auto")
    axes.autoscale(False)  # what is drawn over the image does not move it


def brightening(image: np.ndarray) -> float:
    """How many times brighter a dark image is to be shown, 1 for most: micrographs often use a tenth of the range."""
    white = max(float(np.quantile(image, 0.995)), 1)
    return 1.0 if white >= _DARK else min(255 / white, _BRIGHTEST)


def draw_instances(axes: Axes, shown: Shown, colours: Mapping[str, str], renderer: TextRenderer) -> None:
    """Masks, boxes, key points and labels over the image that `draw_image` drew, in `colours_of_names`, or one colour
    per instance.

    The axes must have their final place in the figure: what is drawn depends on the size on paper. Small objects lose
    their score, then their name; a crowd with masks or key points loses its boxes.
    """
    crowded = len(shown.names) > _CROWD
    of_instance = [colours[name] for name in shown.names] if colours else _spread_colours(shown.boxes)
    order: list[int] = np.argsort(-_areas(shown.boxes), kind="stable").tolist()  # small ones on top
    widths = _line_widths(axes, shown.boxes)
    for index in order:
        if shown.keypoints is not None:
            if not crowded:
                draw_box(axes, shown.boxes[index], of_instance[index], 0.5 * widths[index])
            continue
        if shown.masks is None:
            draw_box(axes, shown.boxes[index], of_instance[index], 1.2 * widths[index])
            continue
        mask = shown.masks[index]
        assert mask.shape == shown.size, (mask.shape, shown.size)
        draw_mask(axes, mask, of_instance[index], widths[index])
        if not crowded:
            draw_box(axes, shown.boxes[index], of_instance[index], 0.6 * widths[index])
    if shown.keypoints is not None:  # over all boxes
        for index in order:
            draw_keypoints(axes, shown.keypoints[index], shown.skeleton, of_instance[index], widths[index])
    if colours or not crowded:
        labels = []
        for index in order:
            name = renderer.clean(shown.names[index], 28) if colours else ""
            score = "" if shown.scores is None else f"{shown.scores[index]:.2f}"
            labels.append(Label(_wordings(name, score), shown.boxes[index], of_instance[index]))
        write_labels(axes, labels, renderer)


def draw_mask(axes: Axes, mask: np.ndarray, colour: str, line_width: float, fill: float = 0.28) -> None:
    """A bool mask (h, w): translucent inside, an outline between its pixels and the others; nothing if it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    top, left = rows[0], columns[0]
    # A frame of zeros: the outline closes at the image's border too.
    crop = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(float), 1)
    x, y = np.arange(crop.shape[1]) + left - 1, np.arange(crop.shape[0]) + top - 1
    # What axes.contourf draws, which takes twenty times as long for the bookkeeping around it.
    points, codes = cast(Any, contour_generator(x, y, crop, fill_type="OuterCode").filled(0.5, 1.5))
    path = Path(np.concatenate(points), np.concatenate(codes))
    axes.add_artist(PathPatch(path, facecolor=colour, alpha=fill, linewidth=0))
    axes.add_artist(PathPatch(path, fill=False, edgecolor=colour, linewidth=line_width, **_cased(line_width)))


def draw_box(axes: Axes, box: np.ndarray, colour: str, line_width: float) -> None:
    """A box (4,) xyxy in pixels."""
    x1, y1, x2, y2 = box
    place = (x1 - 0.5, y1 - 0.5)
    axes.add_artist(
        Rectangle(place, x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line_width, **_cased(line_width))
    )


def draw_keypoints(
    axes: Axes, keypoints: np.ndarray, skeleton: Sequence[tuple[int, int]], colour: str, line_width: float
) -> None:
    """Key points (K, 3) x, y, v: limbs between the known ones, discs for visible points, rings for hidden ones."""
    # A limb ends at the middle of a pixel as imshow counts them: pixel i reaches from i - 0.5 to i + 0.5.
    x, y = keypoints[:, 0] - 0.5, keypoints[:, 1] - 0.5
    limbs = [(a, b) for a, b in skeleton if min(keypoints[a, 2], keypoints[b, 2]) > 0]
    if limbs:
        path = Path([(x[end], y[end]) for limb in limbs for end in limb], [Path.MOVETO, Path.LINETO] * len(limbs))
        width = 1.3 * line_width
        axes.add_artist(
            PathPatch(path, fill=False, edgecolor=colour, linewidth=width, capstyle="round", **_cased(width))
        )
    for seen in (1, 2):
        points = keypoints[:, 2] == seen
        axes.add_artist(
            Line2D(
                x[points],
                y[points],
                linestyle="none",
                marker="o",
                markersize=3.2 * line_width,
                markerfacecolor=colour if seen == 2 else "black",
                markeredgecolor="black" if seen == 2 else colour,
                markeredgewidth=(0.4 if seen == 2 else 0.9) * line_width,
            )
        )


def _line_widths(axes: Axes, boxes: np.ndarray) -> list[float]:
    """n in points: thin around what is small on paper."""
    points_per_pixel = axes.get_window_extent().width * 72 / axes.figure.dpi / abs(np.subtract(*axes.get_xlim()))
    return np.clip(np.sqrt(_areas(boxes)) * points_per_pixel / 22, 0.7, 1.5).tolist()


def _cased(line_width: float) -> dict[str, Any]:
    """A line between two dark ones, to be seen on any ground."""
    return {
        "joinstyle": "round",
        "path_effects": [withStroke(linewidth=1.3 * line_width + 0.5, foreground="black", alpha=0.6)],
    }


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def _wordings(name: str, score: str) -> list[str]:
    """What to write, the best first."""
    if name and score:
        return [f"{name} {score}", name]
    return [text for text in (name, score) if text]


def _spread_colours(boxes: np.ndarray) -> list[str]:
    """One colour per box (n, 4): of those there are, the one whose nearest box so far is farthest away."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = np.full((_COLOURS_OF_INSTANCES, len(boxes)), np.inf)
    chosen = []
    for index, centre in enumerate(centres):
        chosen.append(int(nearest[:, index].argmax()))
        distance = np.linalg.norm(centres - centre, axis=1)
        nearest[chosen[-1]] = np.minimum(nearest[chosen[-1]], distance)
    return [_COLOURS[colour] for colour in chosen]
