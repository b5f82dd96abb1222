"""What an image shows, in words: so many of each category, in its colour, over as many lines as it takes."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.patches import Rectangle

from botformer.plots import style
from botformer.plots.fonts import TextRenderer

LINE = 0.2  # inches
_MOST_LINES = 5
_POINTS = 9.0
_GAP = 0.17  # inches between entries
_SWATCH, _AFTER_SWATCH = 0.1, 0.05


class Entry(NamedTuple):
    text: str
    colour: str | None = None
    """Of the square before it; None for no square."""
    weight: str = "normal"
    ink: str = style.INK


Lines = list[list[tuple[float, Entry]]]
"""For each line its entries, each with its distance from the left in inches."""


def break_lines(entries: Sequence[Entry], width: float, renderer: TextRenderer) -> Lines:
    """Lines at most `width` inches wide. Where they are too many, the last entry says how many are left out."""
    lines: Lines = [[]] if entries else []
    used = 0.0
    for place, entry in enumerate(entries):
        needed = _width(entry, renderer)
        if lines[-1] and used + needed > width:
            if len(lines) == _MOST_LINES:
                _say_how_many_more(lines[-1], len(entries) - place, width, renderer)
                break
            lines.append([])
            used = 0.0
        lines[-1].append((used, entry))
        used += needed + _GAP
    return lines


def write_legend(lines: Lines, left: float, top: float, renderer: TextRenderer) -> None:
    """Write the lines with their upper left corner so many inches from that of the figure, whose size is final."""
    for number, line in enumerate(lines):
        base = renderer.figure.get_figheight() - top - (number + 0.72) * LINE
        for offset, entry in line:
            x = left + offset
            if entry.colour:
                square = Rectangle((x, base - 0.005), _SWATCH, _SWATCH, facecolor=entry.colour)
                square.set_transform(renderer.figure.dpi_scale_trans)
                renderer.figure.add_artist(square)
                x += _SWATCH + _AFTER_SWATCH
            renderer.write((x, base), entry.text, _POINTS, entry.ink, entry.weight)


def write_heading(text: str, left: float, top: float, renderer: TextRenderer, faint: bool = False) -> None:
    """One line, bold or faint."""
    entry = Entry(text, ink=style.FAINT) if faint else Entry(text, weight="bold")
    write_legend([[(0.0, entry)]], left, top, renderer)


def _say_how_many_more(line: list[tuple[float, Entry]], more: int, width: float, renderer: TextRenderer) -> None:
    while True:
        entry = Entry(f"and {more} more", ink=style.FAINT)
        end = line[-1][0] + _width(line[-1][1], renderer) + _GAP if line else 0
        if not line or end + _width(entry, renderer) <= width:
            line.append((end, entry))
            return
        line.pop()
        more += 1


def _width(entry: Entry, renderer: TextRenderer) -> float:
    swatch = _SWATCH + _AFTER_SWATCH if entry.colour else 0
    return swatch + renderer.width(entry.text, _POINTS, entry.weight)
