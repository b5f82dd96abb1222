"""The figure of docs/tour.md: what flows where, and which files do it. python docs/images/draw_flow.py"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon

INK, FAINT, LINE = "#1f2933", "#5b6670", "#7b8794"
GREY, YELLOW, BLUE, GREEN, PALE_GREEN, ORANGE = "#e3e8ec", "#f6c85f", "#cfe3f4", "#cde6d0", "#eef6ef", "#f7dcc6"
WIDTH, HEIGHT = 11.7, 9.1
CENTRE = {"ha": "center", "va": "center"}


class Part:
    """A box around (x, y) with a title and the files of interest."""

    def __init__(
        self, axes: Axes, number: int, x: float, y: float, width: float, title: str, files: list[str], colour: str
    ) -> None:
        height = 0.6 + 0.24 * len(files)
        self.x, self.y = x, y
        self.left, self.right, self.top, self.bottom = x - width / 2, x + width / 2, y + height / 2, y - height / 2
        rounded(axes, self.left, self.bottom, width, height, facecolor=colour, edgecolor="none")
        axes.add_patch(Circle((self.left, self.top), 0.17, facecolor=INK, edgecolor="white", linewidth=1.6, zorder=3))
        axes.text(self.left, self.top - 0.01, str(number), **CENTRE, fontsize=9, color="white", weight="bold", zorder=4)
        axes.text(x, self.top - 0.3, title, **CENTRE, fontsize=12, color=INK, weight="bold")
        for row, file in enumerate(files):
            axes.text(x, self.top - 0.6 - 0.24 * row, file, **CENTRE, fontsize=10, color=FAINT)


def main() -> None:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=150, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")

    rounded(axes, 0.15, 0.75, WIDTH - 0.3, HEIGHT - 0.9, facecolor="none", edgecolor=LINE, linestyle=(0, (4, 3)))
    axes.text(WIDTH - 0.45, HEIGHT - 0.5, "create/", fontsize=12, weight="bold", color=INK, ha="right", va="center")
    note = "puts the packages together;\nnone imports another, only\nbackbone/ imports attention/"
    axes.text(WIDTH - 0.45, HEIGHT - 1.05, note, fontsize=10, color=FAINT, ha="right", va="center", linespacing=1.4)
    rounded(axes, 3.3, 2.45, WIDTH - 3.65, 2.15, facecolor=PALE_GREEN, edgecolor="none")
    axes.text(WIDTH - 0.55, 4.3, "detection/", fontsize=12, weight="bold", color=INK, ha="right", va="center")

    read = Part(axes, 1, 1.75, 8.0, 1.4, "data/", ["image_io.py"], BLUE)
    load = Part(axes, 2, 4.1, 8.0, 1.8, "data/", ["transforms.py", "batches.py", "loader.py"], BLUE)
    network = Part(axes, 3, 4.1, 5.75, 1.8, "backbone/", ["variants.py", "resnet.py", "blocks.py", "mhsa.py"], GREY)
    attention = Part(axes, 4, 7.35, 5.75, 1.8, "attention/", ["definition.py", "operation.py", "backends.py"], YELLOW)
    classify = Part(axes, 5, 1.6, 3.3, 1.9, "classification/", ["task.py", "metrics.py"], GREEN)
    fpn = Part(axes, 6, 4.1, 3.3, 0.9, "fpn.py", [], GREEN)
    rpn = Part(axes, 7, 5.85, 3.3, 0.9, "rpn.py", [], GREEN)
    heads = Part(axes, 8, 8.15, 3.3, 1.65, "roi_heads/", ["box_head.py", "mask_head.py", "keypoint_head.py"], GREEN)
    scores = Part(axes, 9, 10.5, 3.3, 1.3, "evaluation/", ["coco_eval.py"], GREEN)
    train = Part(axes, 10, 5.85, 1.32, 1.9, "training/", ["loop.py"], ORANGE)

    flow(axes, [(0.35, read.y), (read.left, read.y)], "files", at=(0.62, read.y + 0.2))
    flow(axes, [(read.right, read.y), (load.left, read.y)], "pixels")
    flow(axes, [(load.x, load.bottom), (load.x, network.top)], "batch", "(B, 3, H, W)")
    flow(axes, [(network.right, 5.95), (attention.left, 5.95)], "q, k, v")
    flow(axes, [(attention.left, 5.5), (network.right, 5.5)])
    flow(
        axes, [(network.left, network.y), (classify.x, network.y), (classify.x, classify.top)], "logits", at=(1.72, 4.6)
    )
    flow(axes, [(network.x, network.bottom), (fpn.x, fpn.top)], "c2 … c5", "strides 4 … 32")
    flow(axes, [(fpn.right, fpn.y), (rpn.left, fpn.y)], "p2 … p6", below=True)
    flow(axes, [(rpn.right, rpn.y), (heads.left, rpn.y)], "proposals", below=True)
    flow(axes, [(heads.right, heads.y), (scores.left, heads.y)], "detections", below=True)
    flow(
        axes,
        [(classify.x, classify.bottom), (classify.x, train.y), (train.left, train.y)],
        "losses, metrics",
        at=(3.3, 1.52),
    )
    flow(axes, [(train.x, 2.45), (train.x, train.top)], "losses, metrics")
    flow(axes, [(train.right, train.y), (train.right + 0.8, train.y)], "checkpoints, journal", at=(8.6, train.y))

    for x, name, width, what in _AROUND:
        axes.text(x, 0.42, name, fontsize=11, weight="bold", color=INK, va="center")
        axes.text(x + width, 0.42, what, fontsize=10, color=FAINT, va="center")
    figure.savefig(Path(__file__).with_name("flow.png"))


_AROUND = (
    (0.35, "recipes/", 0.85, "experiments as rows of data"),
    (4.15, "commands/", 1.12, "one file per verb"),
    (7.45, "evaluate/  predict/", 1.85, "trained networks at work"),
)
"""What stands around the parts: place, name, its width, what it is."""


def rounded(axes: Axes, x: float, y: float, width: float, height: float, **style: object) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.1", **style))


def flow(
    axes: Axes,
    points: list[tuple[float, float]],
    data: str = "",
    note: str = "",
    at: tuple[float, float] | None = None,
    below: bool = False,
) -> None:
    """An arrow along `points`, labelled with what flows: above (or below) a level one, right of an upright one."""
    (x0, y0), (x1, y1) = points[-2:]
    length = abs(x1 - x0) + abs(y1 - y0)
    along, across = ((x1 - x0) / length, (y1 - y0) / length), ((y0 - y1) / length, (x1 - x0) / length)
    base = (x1 - 0.16 * along[0], y1 - 0.16 * along[1])
    axes.plot(*zip(*points[:-1], base, strict=True), color=LINE, linewidth=1.6, solid_joinstyle="round")
    wings = [(base[0] + side * 0.075 * across[0], base[1] + side * 0.075 * across[1]) for side in (-1, 1)]
    axes.add_patch(Polygon([(x1, y1), *wings], facecolor=LINE, edgecolor="none"))
    level = y0 == y1
    x, y = at or ((x0 + x1) / 2 + (0 if level else 0.12), (y0 + y1) / 2 + (0 if not level else -0.2 if below else 0.18))
    place = {"ha": "center" if level else "left", "va": "center"}
    axes.text(x, y + (0.11 if note else 0), data, **place, fontsize=11, color=INK, style="italic")
    axes.text(x, y - 0.12, note, **place, fontsize=9, color=FAINT)


if __name__ == "__main__":
    main()
