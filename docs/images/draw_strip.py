"""The strip of the README: what a BoTNet is, and three things it does, on a light panel of its own.

python docs/images/draw_strip.py RUN IMAGE      (a classifier's run and a photograph, as in docs/gallery.md)
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

import botformer
from botformer import explain
from botformer.data import synthetic
from botformer.plots import style
from botformer.plots.fonts import TextRenderer
from botformer.plots.heat_tiles import heat_tile, times_mean_scale
from botformer.plots.instances import brightening, draw_image, draw_instances

CELLS = Path(synthetic.__file__).parent / "bbbc038/nuclei.png"
PART, HEAD = np.s_[130:386, 130:386], 2
WIDTH, HEIGHT, PANEL = 16.0, 4.2, 3.3
PLAIN, NEW, PAPER, EDGE = "#e3e8ec", "#f6c85f", "#ffffff", "#cfd6dc"


def main(run: Path, photograph: Path) -> None:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=100, facecolor=PAPER)
    figure.add_artist(
        FancyBboxPatch((0.001, 0.004), 0.998, 0.992, boxstyle="square,pad=0", fc=PAPER, ec=EDGE, zorder=-1)
    )
    draw_blocks(panel(figure, 0.3, "a ResNet block, a BoT block", 4.0))
    image = np.asarray(Image.open(CELLS).convert("RGB"))[PART]
    draw_nuclei(panel(figure, 4.75), image)
    draw_attention(panel(figure, 8.4, "shows where attention looks"), image)
    draw_classes(panel(figure, 12.3, "classifies"), botformer.predictor(run)(photograph))
    out = Path(__file__).with_name("strip.png")
    figure.savefig(out, facecolor=PAPER)
    Image.open(out).convert("RGB").quantize(256, kmeans=3, dither=Image.Dither.FLOYDSTEINBERG).save(out, optimize=True)


def panel(figure: Figure, left: float, title: str = "", wide: float = PANEL) -> Axes:
    axes = figure.add_axes((left / WIDTH, 0.28 / HEIGHT, wide / WIDTH, PANEL / HEIGHT))
    style.bare(axes)
    head(axes, title)
    return axes


def head(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=14, fontweight="bold", color=style.INK, pad=8)


def draw_blocks(axes: Axes) -> None:
    axes.set(xlim=(0, 4.0), ylim=(0, PANEL))
    for x, middle, note, fill in (
        (0.85, "3x3 convolution", "sees 3x3 cells", PLAIN),
        (2.85, "self-attention", "sees the whole map", NEW),
    ):
        rows = [(2.75, "1x1 convolution", "", PLAIN), (1.75, middle, note, fill), (0.75, "1x1 convolution", "", PLAIN)]
        for y, name, words, colour in rows:
            box = FancyBboxPatch(
                (x - 0.78, y - 0.27), 1.56, 0.54, boxstyle="round,pad=0.03", facecolor=colour, edgecolor="none"
            )
            axes.add_patch(box)
            axes.text(x, y + 0.1 * bool(words), name, ha="center", va="center", fontsize=11.5, color=style.INK)
            axes.text(x, y - 0.14, words, ha="center", va="center", fontsize=9.5, color=style.FAINT)
        for top, bottom in ((3.28, 3.06), (2.45, 2.06), (1.45, 1.06), (0.45, 0.22)):
            arrow = FancyArrowPatch((x, top), (x, bottom), arrowstyle="-|>", mutation_scale=12, color=style.FAINT)
            axes.add_patch(arrow)
        axes.text(x, 0.1, "+", ha="center", va="center", fontsize=16, color=style.INK)
        side = x + 0.97
        axes.plot([x, side, side], [3.2, 3.2, 0.1], color=style.FAINT, linewidth=1.2)
        axes.add_patch(
            FancyArrowPatch((side, 0.1), (x + 0.12, 0.1), arrowstyle="-|>", mutation_scale=12, color=style.FAINT)
        )


def draw_nuclei(axes: Axes, image: np.ndarray) -> None:
    result = botformer.predictor("nuclei", threshold=0.5)(image)
    shown = result.network.to_plot(result, range(len(result)), result.image.decode())
    draw_image(axes, np.minimum(image * brightening(image), 255).astype(np.uint8))
    draw_instances(axes, shown, {}, TextRenderer(axes.get_figure(), shown.names))
    head(axes, "detects and outlines")


def draw_attention(axes: Axes, image: np.ndarray) -> None:
    model, config = botformer.load("nuclei")
    seen = explain.see(config, image)
    query = seen.pixel(118, 177)
    (layer,) = explain.attention_heads(model, seen.pixels, query)
    times = layer.attention[HEAD] * layer.attention[HEAD].size
    tile = heat_tile(seen.image, times, layer.stride_px, times_mean_scale(float(times.max()) / 4), query)
    axes.imshow(tile, aspect="auto")


def draw_classes(axes: Axes, result) -> None:
    seen = np.asarray(result.image.decode())
    tall = 2.1
    rows = round(seen.shape[1] * tall / PANEL)
    top = (len(seen) - rows) // 2
    axes.imshow(seen[top : top + rows], extent=(0, PANEL, tall, 0), aspect="auto")
    axes.set(xlim=(0, PANEL), ylim=(PANEL, 0))
    for row, (name, probability) in enumerate(list(zip(result.labels, result.probabilities, strict=True))[:3]):
        y, bar = tall + 0.3 + 0.37 * row, 1.45
        axes.barh(y, bar, height=0.17, left=1.1, color=style.RULE, alpha=0.6)
        axes.barh(y, bar * probability, height=0.17, left=1.1, color=style.LINES[0])
        axes.text(0, y, name, va="center", fontsize=12, color=style.INK, weight="bold" if not row else "normal")
        axes.text(PANEL, y, f"{probability:.1%}", va="center", ha="right", fontsize=12, color=style.FAINT)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
