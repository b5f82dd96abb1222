"""What a detector finds on an image: alone, beside the truth, and with what its attention looked at."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from botformer.plots import style
from botformer.plots.attention_overlay import MARK, draw_layer
from botformer.plots.fonts import TextRenderer
from botformer.plots.instances import (
    Shown,
    brightening,
    colours_of_names,
    draw_box,
    draw_image,
    draw_instances,
    draw_mask,
)
from botformer.plots.legend import LINE, Entry, break_lines, write_heading, write_legend

_MARGIN, _GAP, _BELOW_HEADING = 0.12, 0.22, 0.06  # inches
_PIXELS_PER_INCH = 80
_LONGEST, _SHORTEST = 8.76, 5.4  # inches of an image's longer side, when it stands alone
_NARROWEST = 3.4  # inches: space for words above a tall image
_TALLEST_OF_A_PAIR = 4.4
_TALLEST_OF_LAYERS = 9.0
_MOST_COLUMNS = 4
_BELOW_LAYER = 0.2
_INNER_WIDTH = style.WIDTH - 2 * _MARGIN


def draw_detections(shown: Shown, out: Path | BinaryIO) -> None:
    """Draw one image and its objects as PNG; above it, how many there are of what.

    The longer side is 5.4 to 8.8 inches: a small image is legible, a large one not larger than a report.
    """
    height, width = shown.size
    longer = np.clip(max(shown.size) / _PIXELS_PER_INCH, _SHORTEST, _LONGEST)
    tall, wide = longer * height / max(shown.size), longer * width / max(shown.size)
    inner = max(wide, _NARROWEST)

    figure = _sheet()
    renderer = TextRenderer(figure, shown.names)
    colours = colours_of_names(shown.names)
    lines = break_lines(_summary(shown, colours, renderer), inner, renderer)
    above = len(lines) * LINE + 1.5 * _MARGIN
    figure.set_size_inches(inner + 2 * _MARGIN, above + tall + _MARGIN)
    write_legend(lines, _MARGIN, _MARGIN, renderer)
    _draw(_panel(figure, _MARGIN, above, wide, tall), shown, colours, renderer)
    style.save(figure, out)


def draw_pairs(pairs: Sequence[tuple[str, Shown, Shown]], out: Path) -> None:
    """Draw rows of (title, truth, prediction) as PNG, the truth at the left; both of one image, at least one row.

    A category has one colour in all of them.
    """
    assert pairs, "nothing to compare"
    names = [name for _, *both in pairs for shown in both for name in shown.names]
    figure = _sheet()
    renderer = TextRenderer(figure, [*names, *(title for title, _, _ in pairs)])
    colours = colours_of_names(names)
    legend = [Entry(renderer.clean(name, 40), colour) for name, colour in colours.items()]
    lines = break_lines(legend, _INNER_WIDTH, renderer)

    width = (_INNER_WIDTH - _GAP) / 2
    sizes = [_fit(truth.size, width, _TALLEST_OF_A_PAIR) for _, truth, _ in pairs]
    above = 2 * LINE + _BELOW_HEADING
    top = _MARGIN + len(lines) * LINE + _MARGIN if lines else _MARGIN
    figure.set_size_inches(style.WIDTH, top + sum(above + tall + _GAP for tall, _ in sizes) - _GAP + _MARGIN)
    write_legend(lines, _MARGIN, _MARGIN, renderer)
    for (title, truth, prediction), (tall, wide) in zip(pairs, sizes, strict=True):
        assert truth.size == prediction.size, (title, truth.size, prediction.size)
        head = [Entry(renderer.clean(title, 80), weight="bold"), *_remarks(truth)]
        write_legend(break_lines(head, 2 * _INNER_WIDTH, renderer), _MARGIN, top, renderer)
        for left, what, shown in ((_MARGIN, "truth", truth), (_MARGIN + width + _GAP, "prediction", prediction)):
            write_heading(f"{what}: {_total(shown, colours, renderer)}", left, top + LINE, renderer, faint=True)
            _draw(_panel(figure, left, top + above, wide, tall), shown, colours, renderer)
        top += above + tall + _GAP
    style.save(figure, out)


def draw_detection_attention(
    shown: Shown, index: int, attention: Sequence[tuple[str, np.ndarray]], out: Path | BinaryIO
) -> None:
    """Draw as PNG the image with one of its objects, and over the image what each attention layer looks at.

    Args:
        shown: the image and what is on it; the other objects are left out.
        index: which object.
        attention: for each layer a label and the weights (H, W) from the object to every position, which are stretched
            over the whole image; at least one.
    """
    assert attention, "no layer to draw"
    score = "" if shown.scores is None else f"  {shown.scores[index]:.2f}"
    panels = [(shown.names[index] + score, None), *attention]
    figure = _sheet()
    renderer = TextRenderer(figure, [label for label, _ in panels])
    note = Entry("The outlined object looks at what is bright; each panel has its own scale.", ink=style.FAINT)
    lines = break_lines([note, *_remarks(shown)], _INNER_WIDTH, renderer)

    columns, width, (tall, wide) = _grid(len(panels), shown.size)
    row = LINE + _BELOW_HEADING + tall + _BELOW_LAYER + _GAP
    under = _MARGIN + -(-len(panels) // columns) * row
    figure.set_size_inches(style.WIDTH, under + len(lines) * LINE + _MARGIN)
    image = _brightened(shown.image)
    for place, (label, weights) in enumerate(panels):
        left, top = _MARGIN + place % columns * (width + _GAP), _MARGIN + place // columns * row
        axes = _panel(figure, left, top + LINE + _BELOW_HEADING, wide, tall)
        if weights is None:
            draw_image(axes, image)
        else:
            draw_layer(axes, image, "", weights)
        write_heading(renderer.clean(label, int(12 * width)), left, top, renderer)
        _point_out(axes, shown, index)
    write_legend(lines, _MARGIN, under, renderer)
    style.save(figure, out)


def _draw(axes: Axes, shown: Shown, colours: Mapping[str, str], renderer: TextRenderer) -> None:
    draw_image(axes, _brightened(shown.image))
    draw_instances(axes, shown, colours, renderer)


def _point_out(axes: Axes, shown: Shown, index: int) -> None:
    """Outline of one object, and a box around it if it is small."""
    if shown.masks is None:
        draw_box(axes, shown.boxes[index], MARK, 1.5)
    else:
        draw_mask(axes, shown.masks[index], MARK, 1.3, fill=0)
    x1, y1, x2, y2 = shown.boxes[index]
    least = max(shown.size) / 12
    if max(x2 - x1, y2 - y1) < least:
        centre = np.array([x1 + x2, y1 + y2]) / 2
        draw_box(axes, np.concatenate([centre - 0.7 * least, centre + 0.7 * least]), MARK, 1)


def _summary(shown: Shown, colours: Mapping[str, str], renderer: TextRenderer) -> list[Entry]:
    """How many objects, the range of their scores, and how many of each category, the most frequent first."""
    entries = [Entry(_total(shown, colours, renderer), weight="bold")]
    if shown.scores is not None and len(shown.scores):
        low, high = f"{np.min(shown.scores):.2f}", f"{np.max(shown.scores):.2f}"
        entries.append(Entry(f"score {low}" if low == high else f"scores {low} to {high}", ink=style.FAINT))
    entries += _remarks(shown)
    if colours:
        for name, count in Counter(shown.names).most_common():
            entries.append(Entry(_times(count, name, renderer), colours[name]))
    return entries


def _total(shown: Shown, colours: Mapping[str, str], renderer: TextRenderer) -> str:
    count = len(shown.names)
    if not count:
        return "no objects" if shown.scores is None else "nothing found"
    if colours:
        return f"{count} object{'s' if count > 1 else ''}"
    return _times(count, shown.names[0], renderer)


def _times(count: int, name: str, renderer: TextRenderer) -> str:
    return f"{count} \N{MULTIPLICATION SIGN} {renderer.clean(name, 36)}"


def _remarks(shown: Shown) -> list[Entry]:
    """That a dark image is shown brighter than it is."""
    gain = brightening(shown.image)
    return [] if gain == 1 else [Entry(f"brightened {gain:.1f} times", ink=style.FAINT)]


def _brightened(image: np.ndarray) -> np.ndarray:
    gain = brightening(image)
    return image if gain == 1 else np.minimum(image * gain, 255).astype(np.uint8)


def _sheet() -> Figure:
    """A figure in which everything is placed by hand; its height is set when it is known."""
    figure = style.new_figure(1)
    figure.set_layout_engine("none")
    return figure


def _panel(figure: Figure, left: float, top: float, wide: float, tall: float) -> Axes:
    """Axes at this place, in inches from the upper left corner of the figure, whose size is final."""
    width, height = figure.get_size_inches()
    return figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))


def _fit(size: tuple[int, int], width: float, tallest: float) -> tuple[float, float]:
    """Height and width in inches of an image of (h, w) pixels that may be so wide and so tall."""
    height, wide = size
    tall = min(width * height / wide, tallest)
    return tall, tall * wide / height


def _grid(count: int, size: tuple[int, int]) -> tuple[int, float, tuple[float, float]]:
    """Columns, the width of one, and the (height, width) of `count` images of (h, w) pixels, as large as they fit."""

    def with_columns(columns: int) -> tuple[int, float, tuple[float, float]]:
        width = (_INNER_WIDTH - (columns - 1) * _GAP) / columns
        rows = -(-count // columns)
        return columns, width, _fit(size, width, max(_TALLEST_OF_LAYERS / rows - 0.7, 0.3))

    return max(map(with_columns, range(1, min(_MOST_COLUMNS, count) + 1)), key=lambda grid: (grid[2], grid[0]))
