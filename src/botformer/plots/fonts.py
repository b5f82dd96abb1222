"""Text in any script, measured before it is drawn, for plots whose layout depends on the length of names."""

import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, FontProperties, findfont, fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from botformer.plots import style

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_LAST_RESORT = "Last Resort"  # a font with a box for every character

_warned_of: set[str] = set()  # so that a folder of plots warns once

log = logging.getLogger("botformer.plots")


class TextRenderer:
    """Draws text on one figure, in fonts that have the characters of `names`.

    Characters that no installed font has become U+FFFD, with a warning. Dollar signs do not start formulas.
    """

    def __init__(self, figure: Figure, names: Iterable[str]) -> None:
        self.figure = figure
        self._renderer = FigureCanvasAgg(figure).get_renderer()
        self._families, self._unknown = _families_for(frozenset("".join(map(_on_one_line, names))))

    def clean(self, name: str, length: int) -> str:
        """The name on one line in characters that can be written, of at most `length` characters."""
        return style.shorten(_on_one_line(name).translate(self._unknown), length)

    def width(self, text: str, points: float, weight: str = "normal") -> float:
        """The width of a text in inches."""
        artist = Text(text=text, figure=self.figure, **self._font(points, weight))
        return artist.get_window_extent(self._renderer).width / self.figure.dpi

    def write(self, xy: tuple[float, float], text: str, points: float, colour: str, weight: str = "normal") -> None:
        """Draw text with the left end of its baseline at `xy`, in inches from the figure's lower left corner."""
        inches = {"transform": self.figure.dpi_scale_trans}
        self.figure.text(*xy, text, color=colour, zorder=4, **inches, **self._font(points, weight))

    def _font(self, points: float, weight: str) -> dict[str, Any]:
        return dict(fontsize=points, fontweight=weight, fontfamily=self._families, parse_math=False)


def _on_one_line(name: str) -> str:
    return " ".join(name.split())


@lru_cache(maxsize=256)
def _families_for(characters: frozenset[str]) -> tuple[list[str], dict[int, str]]:
    """Font families that together have the characters, and a `str.translate` table for those that none has."""
    own = FontProperties()
    families, missing = list(own.get_family()), _not_in(findfont(own), characters)
    for entry in fontManager.ttflist:
        if not missing:
            break
        if _is_upright(entry) and _LAST_RESORT not in entry.name:
            left = _not_in(entry.fname, missing)
            if len(left) < len(missing):
                families.append(entry.name)
                missing = left
    _warn_of(missing)
    return families, dict.fromkeys(map(ord, missing), UNKNOWN)


def _warn_of(missing: frozenset[str]) -> None:
    new = sorted(missing - _warned_of)
    if new:
        some = ascii("".join(new[:10]))
        log.warning("no installed font has %s; plots show %s instead (the Noto fonts have them)", some, UNKNOWN)
        _warned_of.update(new)


def _is_upright(entry: FontEntry) -> bool:
    return entry.style == "normal" and entry.weight in (400, "normal", "regular")


def _not_in(font_file: str, characters: frozenset[str]) -> frozenset[str]:
    try:
        font = FT2Font(font_file)
    except RuntimeError:  # a broken font, or one with coloured bitmaps
        return characters
    return frozenset(character for character in characters if not font.get_char_index(ord(character)))
