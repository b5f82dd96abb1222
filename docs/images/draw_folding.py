"""Two figures of docs/maths.md: BatchNorm folded into v, and the pool inside the attention.

python docs/images/draw_folding.py
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from botformer.plots.style import FAINT, INK, WIDTH, bare, save

POSITIONS, CHANNELS = 16, 3
HEIGHT, CELL, MIDDLE = 3.2, 0.125, 1.45  # inches
PLAIN, NEW = "#e3e8ec", "#f6c85f"


def main() -> None:
    folding = Figure(figsize=(WIDTH, 2.5), facecolor="white")
    axes = folding.add_axes((0, 0, 1, 1))
    bare(axes)
    axes.set(xlim=(0, 9), ylim=(0, 2.5))
    draw_chain(axes, 2.0, "trained", ("v", "weights A", "average pool P", "BatchNorm: s y + t"), "BatchNorm")
    draw_chain(axes, 0.5, "deployed", ("s v + t", "weights A", "average pool P"), "s v")
    axes.text(4.5, 1.25, "P A (s v + t)  =  s (P A v) + t,   because every row of A and of P sums to 1",
              ha="center", va="center", fontsize=11, color=INK)  # fmt: skip
    save(folding, Path(__file__).with_name("folding.png"))
    save(draw_pooling(), Path(__file__).with_name("pooling.png"))


def draw_chain(axes: Axes, y: float, name: str, parts: tuple[str, ...], affine: str) -> None:
    """Boxes from left to right; that which is affine per channel in another colour."""
    axes.text(0.15, y, name, ha="left", va="center", fontsize=11, color=FAINT)
    for place, part in enumerate(parts):
        x = 2.0 + 1.98 * place
        colour = NEW if part.startswith(affine) else PLAIN
        corner, style = (x - 0.77, y - 0.3), "round,pad=0.03"
        axes.add_patch(FancyBboxPatch(corner, 1.54, 0.6, boxstyle=style, facecolor=colour, edgecolor="none"))
        axes.text(x, y, part, ha="center", va="center", fontsize=10, color=INK)
        if place:
            arrow = FancyArrowPatch((x - 1.2, y), (x - 0.81, y), arrowstyle="-|>", mutation_scale=11, color=FAINT)
            axes.add_patch(arrow)


def draw_pooling() -> Figure:
    """Weights of a map of 4x4, queries ordered by their cell of 2x2, and the same after each cell was averaged."""
    rng = np.random.default_rng(3)
    weights = np.exp(2.5 * rng.random((POSITIONS, POSITIONS)))
    weights /= weights.sum(1, keepdims=True)
    values = rng.random((POSITIONS, CHANNELS))
    pooled = weights.reshape(-1, 4, POSITIONS).mean(1)
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    draw_matrix(figure, 0.45, weights, "Blues", "A", 4)
    draw_matrix(figure, 2.75, values, "Greens", "v")
    draw_matrix(figure, 3.43, weights @ values, "Oranges", "A v", 4)
    draw_matrix(figure, 4.45, pooled @ values, "Oranges", "P A v")
    draw_matrix(figure, 5.35, pooled, "Blues", "P A")
    draw_matrix(figure, 7.65, values, "Greens", "v")
    draw_matrix(figure, 8.35, pooled @ values, "Oranges", "P A v")
    signs = ((2.6, "\N{MULTIPLICATION SIGN}"), (3.28, "="), (4.13, "\N{RIGHTWARDS ARROW}"))
    for x, sign in (*signs, (7.5, "\N{MULTIPLICATION SIGN}"), (8.19, "=")):
        figure.text(x / WIDTH, MIDDLE / HEIGHT, sign, fontsize=12, color=INK, ha="center", va="center")
    for x, note in ((0.45, "averaged afterwards: 16 rows times v"), (5.35, "averaged first: 4 rows times v")):
        figure.text(x / WIDTH, 2.95 / HEIGHT, note, fontsize=10, color=INK, fontweight="bold")
    figure.text(0.22 / WIDTH, MIDDLE / HEIGHT, "queries, by cells of 2x2", rotation=90, fontsize=9, color=FAINT,
                ha="center", va="center")  # fmt: skip
    figure.text(1.45 / WIDTH, 0.2 / HEIGHT, "keys", fontsize=9, color=FAINT, ha="center")
    figure.text(6.35 / WIDTH, 0.85 / HEIGHT, "keys", fontsize=9, color=FAINT, ha="center")
    return figure


def draw_matrix(figure: Figure, x: float, values: np.ndarray, colours: str, name: str, group: int = 0) -> None:
    """With its left edge at `x` inches, around the middle of the figure; a line after each `group` rows."""
    height, width = (side * CELL for side in values.shape)
    axes = figure.add_axes((x / WIDTH, (MIDDLE - height / 2) / HEIGHT, width / WIDTH, height / HEIGHT))
    axes.imshow(values, cmap=colours, vmin=0, vmax=values.max() * 1.1)
    bare(axes)
    for row in range(group, len(values), group or len(values)):
        axes.axhline(row - 0.5, color="white", linewidth=2)
    axes.set_title(name, fontsize=11, color=INK)


if __name__ == "__main__":
    main()
