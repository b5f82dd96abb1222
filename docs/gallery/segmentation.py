"""Images of objects that were found and outlined."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from sheet import fitted, sheet, show, show_found

from botformer.plots.instances import brightening

LIKELY = 0.5
Names = dict[str, Any]


def dense(_: Names) -> Image.Image:
    return fitted(Image.open("drawn/dense.prediction.png"), tall=600)


def beside(names: Names) -> Figure:
    """The image, and what was found on it."""
    result = names["result"]
    image = np.asarray(result.image.decode())
    figure, ((left, right),) = sheet([[image.shape[0] / image.shape[1]] * 2])
    bright = np.minimum(image * brightening(image), 255).astype(np.uint8)
    show(left, bright, f"{result.name}, {image.shape[1]} x {image.shape[0]} px")
    chosen = np.flatnonzero(result.scores >= LIKELY).tolist()
    show_found(right, result.network.to_plot(result, chosen, result.image.decode()), f"{len(chosen)} nuclei found")
    return figure


def truth(_: Names) -> Image.Image:
    return fitted(Image.open("measured/best_and_worst.png"), tall=1200)


def tiles(names: Names) -> Figure:
    image = np.asarray(Image.open("embryo.png").convert("RGB"))
    height, width = image.shape[:2]
    figure, ((axes,),) = sheet([[height / width]], tallest=4.2)
    show(axes, np.minimum(image * brightening(image), 255).astype(np.uint8), f"{len(names['tiles'])} tiles of 320 px")
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    for number, (left, top, right, bottom) in enumerate(names["tiles"]):
        inset = 3 + 3 * (number % 3)
        axes.add_patch(
            Rectangle(
                (left + inset, top + inset), right - left - 2 * inset, bottom - top - 2 * inset,
                facecolor="none", edgecolor=("#4fb8ff", "#ff9f1c", "#f7ec4a")[number % 3], linewidth=1.4,
            )
        )  # fmt: skip
    return figure


def sliced(_: Names) -> Figure:
    counts = [_count(Path(folder)) for folder in ("whole", "in_tiles")]
    drawn = [Image.open(f"{folder}/embryo.prediction.png").convert("RGB") for folder in ("whole", "in_tiles")]
    figure, panels = sheet([[image.height / image.width] for image in drawn], tallest=3.4)
    for (axes,), image, words in zip(
        panels,
        drawn,
        (f"whole, 2.5 times smaller: {counts[0]} found", f"in tiles of 320 px: {counts[1]} found"),
        strict=True,
    ):
        show(axes, np.asarray(image), words)
    return figure


def _count(folder: Path) -> int:
    found = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    return sum(each["score"] >= LIKELY for each in found)


def precision_recall(_: Names) -> Image.Image:
    return fitted(Image.open("measured/precision_recall.png"))
