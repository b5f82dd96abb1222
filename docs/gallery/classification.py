"""Images of classes, of training, of data and of deployed networks."""

import json
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator
from PIL import Image
from sheet import DPI, WIDTH, fitted, head, sheet, show

from botformer.plots import style

Names = dict[str, Any]
_CHROMIUM = "chromium"
_FAMILIES = {
    "BoTNet": r"botnet(\d+)",
    "BoTNet, stride 1": r"botnet_s1_(\d+)",
    "BoTNet, scaled": r"botnet_(t\d)",
    "ResNet": r"resnet(\d+)",
    "SE-ResNet": r"se_resnet(\d+)",
}


def bars(_: Names) -> Image.Image:
    return fitted(Image.open("classes/can.prediction.png"))


def digits(_: Names) -> Figure:
    """Small images in a row per five, what was read above each."""
    read = {each["file_name"]: each["top5"][0] for each in json.loads(Path("read/predictions.json").read_text())}
    figure, panels = sheet([[1.0] * 8] * 2)
    for axes, (file, (label, probability)) in zip(
        [each for line in panels for each in line], read.items(), strict=False
    ):
        show(axes, np.asarray(Image.open(file)), f"{label}  {probability:.0%}")
    return figure


def confusion(_: Names) -> Image.Image:
    return fitted(Image.open("confused/confusion.png"), tall=560)


def curves(_: Names) -> Image.Image:
    return fitted(Image.open("runs/photos/curves.png"), tall=620)


def report(_: Names) -> Image.Image:
    return screenshot(Path("runs/photos/report.html"), tall=1180)


def duplicates(_: Names) -> Figure:
    """Some of the pairs that the page shows."""
    page = Path("looked_at.html").read_text(encoding="utf-8")
    pairs = re.findall(r"<figcaption>([\w/]+\.jpg) = ([\w/]+\.jpg)</figcaption>", page)
    chosen = [pairs[place] for place in (0, 2, 3, 10)]
    figure, panels = sheet([[4 / 3] * 8], foot=-0.1)
    for axes, file in zip(panels[0], [file for pair in chosen for file in pair], strict=True):
        show(axes, np.asarray(Image.open(next(Path("photos").glob(f"*/{file}")))), Path(file).stem)
    return figure


def precision(_: Names) -> Figure:
    """What both exported networks say of the same images, by their own programs."""
    files = [file for folder in sorted(Path("photos/validation").iterdir()) for file in sorted(folder.iterdir())[3:4]]
    answers = []
    for folder in ("in_float32", "in_bfloat16"):
        command = [sys.executable, f"{folder}/run.py", *map(str, files)]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        answers.append([json.loads(line)["top5"][0] for line in lines])
    figure, panels = sheet([[4 / 3] * len(files)], foot=0.3)
    for axes, file, in_float, in_bfloat16 in zip(panels[0], files, *answers, strict=True):
        show(axes, np.asarray(Image.open(file)), f"{in_float[0]} {in_float[1]:.1%}")
        axes.set_xlabel(f"{in_bfloat16[0]} {in_bfloat16[1]:.1%}", loc="left", fontsize=9.5, color=style.LINES[0])
    return figure


def models(names: Names) -> Figure:
    """The table as a chart: parameters against multiply-adds."""
    figure = Figure(figsize=(WIDTH, 4.4), dpi=DPI, facecolor="white", layout="constrained")
    axes = figure.subplots()
    style.quiet(axes)
    axes.set(xscale="log", yscale="log")
    for (family, pattern), colour in zip(_FAMILIES.items(), style.LINES, strict=False):
        found = [(re.fullmatch(pattern, name.rstrip("*")), float(adds) / 1e9, int(count.replace(",", "")) / 1e6)
                 for name, _, count, _, adds, _ in names["lines"]]  # fmt: skip
        chosen = sorted((adds, count, match[1]) for match, adds, count in found if match)
        axes.plot(*zip(*(place[:2] for place in chosen), strict=True), "o-", color=colour, linewidth=1, label=family)
        for adds, count, short in chosen:
            axes.annotate(short.upper(), (adds, count), (5, -11), textcoords="offset points", fontsize=8, color=colour)
    for axis, ticks in ((axes.xaxis, (3, 5, 10, 20, 30)), (axes.yaxis, (20, 30, 50, 75, 100))):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(FixedLocator([]))
        axis.set_major_formatter("{x:.0f}")
    axes.set_xlabel("multiply-adds of an image of 224 px, in thousand millions", fontsize=9, color=style.INK)
    axes.legend(frameon=False, fontsize=9, loc="upper left", labelcolor=style.INK)
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
