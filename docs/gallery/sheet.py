"""The one style of the gallery's images: panels in rows on white, a bold line above each, 8.8 inches wide."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from botformer.plots import style
from botformer.plots.draw_detections import Shown
from botformer.plots.fonts import TextRenderer
from botformer.plots.heat_tiles import ColourScale
from botformer.plots.instances import brightening, colours_of_names, draw_image, draw_instances

WIDTH, DPI = 8.8, 100
_MARGIN, _GAP, _HEAD, _BAR = 0.1, 0.14, 0.27, 0.5  # inches
_MOST_BYTES = 88_000


def sheet(
    rows: Sequence[Sequence[float]], tallest: float = 3.6, bar: bool = False, foot: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with rows of panels; `rows` holds height / width of each. Panels of a row are equally high.

    `bar` leaves space for `draw_bar`, `foot` inches for words below the panels.
    """
    inner = WIDTH - 2 * _MARGIN
    heights = [min((inner - _GAP * (len(row) - 1)) / sum(1 / aspect for aspect in row), tallest) for row in rows]
    tall = sum(heights) + len(rows) * (_HEAD + _GAP) + (_BAR if bar else foot)
    figure = Figure(figsize=(WIDTH, tall), dpi=DPI, facecolor="white")
    top, panels = tall, []
    for row, height in zip(rows, heights, strict=True):
        wide = sum(height / aspect for aspect in row) + _GAP * (len(row) - 1)
        left, line = _MARGIN + (inner - wide) / 2, []
        top -= _HEAD + height
        for aspect in row:
            width = height / aspect
            line.append(figure.add_axes((left / WIDTH, top / tall, width / WIDTH, height / tall)))
            style.bare(line[-1])
            left += width + _GAP
        top -= _GAP
        panels.append(line)
    return figure, panels


def show(axes: Axes, image: np.ndarray, title: str, smooth: bool = True) -> None:
    """An image that fills its panel."""
    axes.imshow(image, aspect="auto", interpolation="antialiased" if smooth else "nearest")
    head(axes, title)


def show_found(axes: Axes, shown: Shown, title: str) -> None:
    """Objects on their image, as `botformer predict` draws them."""
    gain = brightening(shown.image)
    draw_image(axes, np.minimum(shown.image * gain, 255).astype(np.uint8))
    draw_instances(axes, shown, colours_of_names(shown.names), TextRenderer(axes.get_figure(), shown.names))
    head(axes, title)


def head(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, color=style.INK, fontweight="bold", pad=5)


def draw_bar(figure: Figure, scale: ColourScale, words: str) -> None:
    """What the colours mean, at the foot of a `sheet` that was made with `bar`."""
    tall = figure.get_figheight()
    axes = figure.add_axes((0.42, 0.27 / tall, 0.5, 0.14 / tall))
    axes.imshow(scale.bar(), aspect="auto", extent=(0, 1, 0, 1))
    places = scale.tick_places()
    axes.set_xticks([place for place, _ in places], [text for _, text in places], fontsize=8.5)
    axes.set_yticks([])
    axes.tick_params(length=0, labelcolor=style.FAINT)
    axes.spines[:].set_visible(False)
    figure.text(0.405, 0.34 / tall, words, fontsize=9, color=style.FAINT, va="center", ha="right")


def fitted(image: Image.Image, wide: int = 880, tall: int = 620) -> Image.Image:
    """At most so large, on white."""
    small = image.convert("RGB")
    small.thumbnail((wide, tall), Image.Resampling.LANCZOS)
    return small


def save(drawn: Figure | Image.Image, path: Path) -> None:
    """A JPEG of at most 88 kB, or a PNG, with a palette if it would be larger otherwise."""
    image = drawn if isinstance(drawn, Image.Image) else _drawn(drawn)
    if path.suffix == ".png":
        image.save(path, optimize=True)
        if path.stat().st_size > _MOST_BYTES // 2:
            image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        return
    for quality in range(86, 40, -4):
        content = BytesIO()
        image.save(content, "JPEG", quality=quality, optimize=True, progressive=True)
        if content.tell() <= _MOST_BYTES:
            break
    path.write_bytes(content.getvalue())


def _drawn(figure: Figure) -> Image.Image:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return Image.open(content).convert("RGB")
