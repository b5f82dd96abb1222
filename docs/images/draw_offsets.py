"""A figure of docs/maths.md: which entries of the position tables a query uses. python docs/images/draw_offsets.py"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from botformer.attention.definition import by_offset
from botformer.plots.style import FAINT, INK, LINES, RULE, bare, new_figure, save

H, W = 4, 5
QUERY = (1, 3)
BLUE, ORANGE = LINES[0], LINES[1]


def main() -> None:
    figure = new_figure(3.1)
    layout = figure.add_gridspec(2, 3, width_ratios=(1.25, 2.0, 1.0), height_ratios=(1, 1))
    draw_map(figure.add_subplot(layout[:, 0]))
    draw_table(figure.add_subplot(layout[0, 1]), "R_h: rows", H, QUERY[0], BLUE)
    below = figure.add_subplot(layout[1, 1])
    draw_table(below, "R_w: columns", W, QUERY[1], ORANGE)
    below.set_xlabel("filled: used by this query; below: index of the entry", fontsize=9, color=FAINT)
    draw_matrix(figure.add_subplot(layout[:, 2]))
    save(figure, Path(__file__).with_name("offsets.png"))


def draw_map(axes: Axes) -> None:
    """Each key with its offset from the query: rows, columns."""
    bare(axes, f"keys of a map of {H}x{W}")
    axes.set(xlim=(-0.55, W - 0.45), ylim=(H - 0.45, -0.55), aspect="equal")
    for y in range(H):
        for x in range(W):
            is_query = (y, x) == QUERY
            axes.add_patch(
                Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=INK if is_query else "white", edgecolor=RULE, linewidth=1)
            )
            colours = ("white", "white") if is_query else (BLUE, ORANGE)
            axes.text(x, y - 0.2, signed(y - QUERY[0]), ha="center", va="center", fontsize=10, color=colours[0])
            axes.text(x, y + 0.22, signed(x - QUERY[1]), ha="center", va="center", fontsize=10, color=colours[1])
    axes.set_xlabel("dark: the query; blue: rows from it,\norange: columns from it", fontsize=9, color=FAINT)


def draw_table(axes: Axes, title: str, length: int, query: int, colour: str) -> None:
    """The entries 0 to 2L-2 with the offset that each stands for; those this query uses are filled."""
    bare(axes, f"{title}, {2 * length - 1} entries")
    axes.set(xlim=(-0.55, 8.55), ylim=(1.1, -0.55), aspect="equal")
    for entry in range(2 * length - 1):
        offset = entry - (length - 1)
        used = 0 <= query + offset < length
        axes.add_patch(
            Rectangle((entry - 0.5, -0.5), 1, 1, facecolor=colour if used else "white", edgecolor=RULE, linewidth=1)
        )
        axes.text(entry, 0, signed(offset), ha="center", va="center", fontsize=10, color="white" if used else FAINT)
        axes.text(entry, 0.78, str(entry), ha="center", va="center", fontsize=8, color=FAINT)


def draw_matrix(axes: Axes) -> None:
    """The entry of R_h for every pair of rows, by the code of the definition."""
    entries = by_offset(torch.arange(2 * H - 1)[:, None])[..., 0].numpy()
    bare(axes, "entry of R_h")
    axes.imshow(entries, cmap="Blues", vmin=-2, vmax=2 * H)
    for (y, key), entry in np.ndenumerate(entries):
        axes.text(key, y, str(entry), ha="center", va="center", fontsize=10, color=INK if entry < 5 else "white")
    axes.set_xlabel("row of the key", fontsize=9, color=FAINT)
    axes.set_ylabel("row of the query", fontsize=9, color=FAINT)


def signed(number: int) -> str:
    return "0" if number == 0 else f"{number:+d}".replace("-", "\N{MINUS SIGN}")


if __name__ == "__main__":
    main()
