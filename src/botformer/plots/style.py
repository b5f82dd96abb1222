"""The style of every figure: one width, a light frame, and colours that colour-blind readers can distinguish."""

from pathlib import Path
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from botformer.atomic_write import atomic_file

WIDTH = 9.0  # inches; at 100 pixels per inch the 900 pixels of a report
INK = "#1f2933"
FAINT = "#66717d"  # contrast 4.9 : 1 on white, enough for small text
RULE = "#d9dee3"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito (2008)
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))  # a second way to distinguish lines


def new_figure(height: float, padding: float = 0.1) -> Figure:
    """An empty figure of report width, without pyplot's global state; height and padding in inches."""
    layout = ConstrainedLayoutEngine(w_pad=padding, h_pad=padding)
    return Figure(figsize=(WIDTH, height), layout=layout, facecolor="white")


def quiet(axes: Axes, title: str = "") -> None:
    """Two faint axis lines and a light grid behind the data; `title` at the left."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, length=0)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    head(axes, title)


def bare(axes: Axes, title: str = "") -> None:
    """No frame and no ticks, for axes that show an image."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    head(axes, title)


def head(axes: Axes, title: str, colour: str = INK) -> None:
    """Title at the left; a dollar sign in a file name does not start a formula."""
    axes.set_title(title, loc="left", fontsize=10, color=colour, fontweight="bold", parse_math=False)


def shorten(name: str, length: int) -> str:
    """At most `length` characters, the last one an ellipsis if some are missing."""
    return name if len(name) <= length else name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def save(figure: Figure, out: Path | BinaryIO) -> None:
    """Write a PNG at twice the report's resolution; a file atomically, its folder is made if necessary."""
    if not isinstance(out, Path):
        figure.savefig(out, format="png", dpi=180)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as unfinished:
        figure.savefig(unfinished, format="png", dpi=180)
