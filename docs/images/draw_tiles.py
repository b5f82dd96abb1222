"""The figure of docs/attention.md: how a tile of logits is put together. python docs/images/draw_tiles.py"""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

INK, FAINT = "#1f2933", "#5b6670"
M, W, ROWS = 8, 6, 3


def main() -> None:
    rng = np.random.default_rng(1)
    content, width, height = rng.random((M, W * ROWS)), rng.random((M, W)), rng.random((M, ROWS))
    figure = Figure(figsize=(11, 3.3), dpi=160, facecolor="white")
    total = content + np.tile(width, ROWS) + np.repeat(height, W, 1)
    parts = [
        (0.035, 0.235, total, "Greys", "logits of a tile", "keys, three rows of the image"),
        (0.305, 0.235, content, "Blues", r"$\tilde{q}\cdot k$", "a matrix product"),
        (0.575, 0.235, np.tile(width, ROWS), "Oranges", "column terms A", "one block, the same in every key row"),
        (0.845, 0.13, height, "Greens", "row terms B", "one column per key row"),
    ]
    for (x, size, values, colours, title, note), sign in zip(parts, ["", "=", "+", "+"], strict=True):
        axes = figure.add_axes((x, 0.2, size, 0.6))
        axes.imshow(values, cmap=colours, aspect="auto", vmin=-0.2, vmax=values.max() * 1.1)
        axes.set(xticks=[], yticks=[])
        for edge in range(1, ROWS):
            axes.axvline(edge * (values.shape[1] / ROWS) - 0.5, color="white", linewidth=3)
        axes.set_title(title, fontsize=12, color=INK)
        axes.set_xlabel(note, fontsize=9, color=FAINT)
        figure.text(x - 0.019, 0.5, sign, fontsize=16, color=INK, ha="center", va="center")
    figure.text(0.018, 0.5, "queries", fontsize=9, color=FAINT, rotation=90, ha="center", va="center")
    figure.savefig(Path(__file__).with_name("tiles.png"))


if __name__ == "__main__":
    main()
