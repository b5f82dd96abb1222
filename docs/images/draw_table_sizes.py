"""A figure of docs/maths.md: a position table on maps of other sizes. python docs/images/draw_table_sizes.py"""

from pathlib import Path
from typing import get_args

import torch
from matplotlib.axes import Axes

from botformer.attention import resize_table
from botformer.plots.style import FAINT, INK, LINES, new_figure, quiet, save
from botformer.recipes.model_options import TablePolicy

BUILT, SIZES = 4, (7, 3)
TABLE = torch.tensor([-0.9, -0.2, 0.5, 1.0, 0.1, -0.5, 0.4])  # one channel, offsets -3 to 3


def main() -> None:
    figure = new_figure(4.6)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    meanings = {"interpolate": "fractions of the map", "offset": "distances in cells"}
    for row, size in zip(panels, SIZES, strict=True):
        for axes, policy in zip(row, get_args(TablePolicy), strict=True):
            draw(axes, size, policy)
            quiet(axes, f"{policy}, a map of {size} cells" + ("" if size < BUILT else f": {meanings[policy]}"))
            axes.set(xlim=(-6.6, 6.6), ylim=(-1.25, 1.25), xticks=range(-6, 7))
            axes.set_ylabel("entry, one channel", fontsize=9, color=FAINT)
    for axes in panels[1]:
        axes.set_xlabel("offset of the key, in cells", fontsize=9, color=FAINT)
    for axes in panels.flat:
        axes.label_outer()
    circles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(circles, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False, labelcolor=INK)
    save(figure, Path(__file__).with_name("table_sizes.png"))


def draw(axes: Axes, size: int, policy: TablePolicy) -> None:
    resized = resize_table(TABLE[:, None], size, policy)[:, 0]
    offsets = range(1 - size, size)
    axes.plot(range(1 - BUILT, BUILT), TABLE, "o", markersize=11, markerfacecolor="none", color=LINES[0],
              label=f"as it was built, for a map of {BUILT}")  # fmt: skip
    axes.plot(offsets, resized, "-", color=LINES[1], linewidth=1)
    axes.plot(offsets, resized, "o", color=LINES[1], markersize=5, label="as the other map uses it")


if __name__ == "__main__":
    main()
