"""The differences of results/EVIDENCE.md with their intervals as one image: a dot and a line each, 0 in the middle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from botformer.plots import style

_ROW_INCHES, _TITLE_INCHES = 0.24, 0.42
_COLOURS = {"holds": style.LINES[2], "does": style.LINES[1], "cannot": style.FAINT}
"""By the first word of the verdict."""
_LABEL = (
    "difference in points of mask AP or top-1, with its 95 % interval\n"
    "green: the claim holds in small, orange: it does not"
)


def draw_evidence(groups: Sequence[tuple[str, Sequence[dict[str, Any]]]], out: Path) -> None:
    """`groups`: the title of a row of evidence and its effects, as its receipt has them."""
    heights = [_TITLE_INCHES + _ROW_INCHES * len(effects) for _, effects in groups]
    figure = style.new_figure(0.5 + sum(heights))
    grid = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, effects) in zip(grid, groups, strict=True):
        style.quiet(axes, title)
        axes.axvline(0, color=style.INK, linewidth=1)
        for place, effect in enumerate(effects):
            colour = _COLOURS[effect["verdict"].split()[0]]
            axes.plot([effect["low"], effect["high"]], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
            axes.plot(effect["difference"], place, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(effects)), [effect["effect"] for effect in effects])
        axes.set_ylim(len(effects) - 0.5, -0.5)
    grid[-1].set_xlabel(_LABEL, fontsize=9, color=style.INK)
    style.save(figure, out)
