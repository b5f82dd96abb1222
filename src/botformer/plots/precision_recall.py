"""Precision-recall curves of a detector."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from botformer.plots import style


def draw_precision_recall(curves: Sequence[tuple[str, np.ndarray, np.ndarray, float]], out: Path) -> None:
    """Draw curves (label, recall (101,), precision (101,), AP), all between 0 and 1, as PNG; at least one.

    For an AP of NaN or below 0 (COCO: no objects) only the label is drawn.
    """
    assert curves, "nothing to draw"
    figure = style.new_figure(4.4)
    axes, legend_axes = figure.subplots(1, 2, width_ratios=[1.35, 1])
    style.quiet(axes, "precision and recall")
    style.bare(legend_axes)
    for index, (label, recall, precision, average) in enumerate(curves):
        assert recall.shape == precision.shape, (label, recall.shape, precision.shape)
        known = average >= 0  # NaN is not
        axes.plot(
            recall if known else [],
            precision if known else [],
            color=style.LINES[index % len(style.LINES)],
            linestyle=style.DASHES[index // len(style.LINES) % len(style.DASHES)],
            linewidth=1.8,
            clip_on=False,  # a perfect detector's line lies on the frame
            label=f"{style.shorten(label, 34)}   {f'AP {average:.3f}' if known else 'no objects'}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.set_xlabel("recall", fontsize=9, color=style.INK)
    axes.set_ylabel("precision", fontsize=9, color=style.INK)
    legend = legend_axes.legend(
        *axes.get_legend_handles_labels(), loc="upper left", frameon=False, fontsize=9, labelcolor=style.INK,
        borderaxespad=0, handlelength=2.6,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    style.save(figure, out)
