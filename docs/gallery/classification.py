"""Pictures of classes, of training, of data and of deployed networks."""

import re
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sheet import fitted, head, sheet, show

from botformer.plots import style

Names = dict[str, Any]
_CHROMIUM = "chromium"
_FAMILIES = (
    ("BoTNet, scaled (T3 to T7)", re.compile(r"botnet_t\d")),
    ("BoTNet-50 to 200", re.compile(r"botnet(_s1)?_?\d+$")),
    ("ResNet", re.compile(r"resnet\d+$")),
    ("SE-ResNet", re.compile(r"se_resnet\d+$")),
)


def bars(_: Names) -> Image.Image:
    return fitted(Image.open("classes/plastic.png"))


def confusion(_: Names) -> Image.Image:
    return fitted(Image.open("confused/confusion.png"), tall=560)


def curves(_: Names) -> Image.Image:
    return fitted(Image.open("runs/photos/curves.png"), tall=620)


def report(_: Names) -> Image.Image:
    return screenshot(Path("runs/photos/report.html"), tall=1180)


def duplicates(names: Names) -> Figure:
    """The first groups that the page lists, with the splits in which they are."""
    groups = names["groups"][:4]
    figure, panels = sheet([[0.75] * 2 + [0.75] * 2] * 2, tallest=1.7)
    axes = [each for line in panels for each in line]
    for place, (one, other) in enumerate(group[:2] for group in groups):
        for panel, file in zip(axes[2 * place : 2 * place + 2], (one, other), strict=True):
            show(panel, np.asarray(Image.open(Path("photos") / file).convert("RGB")), "/".join(Path(file).parts[::2]))
    return figure


def quantised(names: Names) -> Figure:
    """The probability of the best class in float32 and in int8, image by image."""
    shown = names["compared"]
    figure, panels = sheet([[1.0] * 8], tallest=1.0)
    raise NotImplementedError(shown, figure, panels)


def models(names: Names) -> Figure:
    """The table as a chart: parameters against multiply-adds."""
    figure, ((axes,),) = sheet([[0.5]], tallest=4.0)
    style.quiet(axes)
    axes.set_position((0.085, 0.13, 0.9, 0.8))
    lines = [(name.rstrip("*"), int(count.replace(",", "")), float(adds)) for name, _, count, _, adds, _ in names["lines"]]
    for (family, pattern), colour in zip(_FAMILIES, style.LINES, strict=False):
        chosen = sorted((line for line in lines if pattern.fullmatch(line[0])), key=lambda line: line[2])
        axes.plot(
            [adds / 1e9 for _, _, adds in chosen], [count / 1e6 for _, count, _ in chosen], "o",
            color=colour, markersize=7, label=family,
        )  # fmt: skip
        for name, count, adds in chosen:
            axes.annotate(name, (adds / 1e9, count / 1e6), (6, 4), textcoords="offset points", fontsize=8, color=style.FAINT)
    axes.set_xscale("log")
    axes.set_xlabel("multiply-adds, in thousand millions, at the size of the paper's figure", fontsize=9, color=style.INK)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    head(axes, "parameters in millions")
    return figure


def screenshot(page: Path, wide: int = 1000, tall: int = 1000) -> Image.Image:
    """The top of a page as Chromium draws it."""
    out = page.with_suffix(".screen.png").resolve()
    subprocess.run(
        [_CHROMIUM, "--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={wide},{tall}",
         f"--screenshot={out}", page.resolve().as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    content = out.read_bytes()
    out.unlink()
    return fitted(Image.open(BytesIO(content)), tall=1100)
