"""The image of the README: a ResNet block beside a BoT block, and where a trained BoT block looks.

python docs/images/draw_blocks.py runs/demo/digits/run IMAGE [IMAGE ...]     (after make demo)
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import botformer

INK, FAINT, PLAIN, NEW = "#1f2933", "#5b6670", "#e3e8ec", "#f6c85f"
WIDTH, HEIGHT = 11.0, 4.3
QUERIES = ((0.3, 0.3), (0.5, 0.6))


def main(run: Path, images: list[Path]) -> None:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=160, facecolor="white")
    blocks = figure.add_axes((0.0, 0.0, 0.5, 1.0))
    blocks.set(xlim=(0, 5.5), ylim=(0, HEIGHT))
    blocks.axis("off")
    draw_block(blocks, 1.3, "ResNet block", "3x3 convolution", PLAIN, "512, sees 3x3 positions")
    draw_block(blocks, 4.0, "BoT block", "MHSA", NEW, "512, 4 heads, sees every position")
    predictor = botformer.predictor(run)
    for row, query in enumerate(QUERIES):
        for column, image in enumerate(images):
            axes = figure.add_axes((0.53 + 0.155 * column, 0.49 - 0.42 * row, 0.145, 0.37))
            draw_attention(axes, predictor(image).to_plot(query))
    figure.text(0.53, 0.925, "where the MHSA of a trained BoTNet looks from the ring", fontsize=11, color=INK)
    figure.savefig(Path(__file__).with_name("blocks.png"))


def draw_block(axes, x: float, title: str, operation: str, colour: str, detail: str) -> None:
    axes.text(x, HEIGHT - 0.28, title, ha="center", fontsize=13, weight="bold", color=INK)
    rows = [(3.3, "1x1 convolution", "2048 to 512", PLAIN), (2.2, operation, detail, colour),
            (1.1, "1x1 convolution", "512 to 2048", PLAIN)]  # fmt: skip
    for y, name, text, fill in rows:
        box = FancyBboxPatch((x - 1.0, y - 0.3), 2.0, 0.6, boxstyle="round,pad=0.03", facecolor=fill, edgecolor="none")
        axes.add_patch(box)
        axes.text(x, y + 0.08, name, ha="center", va="center", fontsize=11, color=INK)
        axes.text(x, y - 0.16, text, ha="center", va="center", fontsize=7.5, color=FAINT)
    for top, bottom in ((3.92, 3.66), (2.95, 2.56), (1.85, 1.46), (0.75, 0.52)):
        axes.add_patch(FancyArrowPatch((x, top), (x, bottom), arrowstyle="-|>", mutation_scale=10, color=FAINT))
    axes.text(x, 0.36, "+", ha="center", va="center", fontsize=15, color=INK)
    side = x + 1.18
    axes.plot([x, side, side], [3.78, 3.78, 0.36], color=FAINT, linewidth=1, solid_joinstyle="round")
    axes.add_patch(FancyArrowPatch((side, 0.36), (x + 0.12, 0.36), arrowstyle="-|>", mutation_scale=10, color=FAINT))


def draw_attention(axes, prediction) -> None:
    _, weights = prediction.attention[-1]
    height, width = prediction.image.shape[:2]
    grey = 0.55 * prediction.image.mean(2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    glow = np.zeros((*weights.shape, 4))
    glow[..., :3] = (1.0, 0.75, 0.1)
    glow[..., 3] = 0.85 * weights / weights.max()
    axes.imshow(glow, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bicubic")
    y, x = prediction.query_yx
    axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor="white", markeredgewidth=3.5)
    axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor="#0072b2", markeredgewidth=2)
    axes.axis("off")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
