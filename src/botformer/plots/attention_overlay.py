"""The attention weights of a layer as a heatmap over the darkened image."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patheffects import withStroke

from botformer.plots import style

# Transparent to pale yellow over a darkened grey image: the value is in the lightness alone.
HEATMAP = LinearSegmentedColormap.from_list(
    "botformer_heatmap", [(0.84, 0.37, 0.0, 0.0), (0.92, 0.52, 0.0, 0.55), (1.0, 0.93, 0.55, 0.8)]
)
MARK = "#56b4e9"  # visible on both the heatmap and the grey


def draw_layer(axes: Axes, image: np.ndarray, label: str, weights: np.ndarray) -> None:
    """One layer: image (h, w, 3) uint8 with the weights (H, W) over it, the label above and the scale below."""
    style.bare(axes, label)
    overlay(axes, image, weights)
    axes.set_xlabel(f"brightest: {weights.max() * weights.size:.1f} times the mean", fontsize=8, color=style.FAINT)


def overlay(axes: Axes, image: np.ndarray, weights: np.ndarray) -> None:
    """The image in dark grey, and over it the weights (H, W) resized to it, brightest at their maximum."""
    height, width = image.shape[:2]
    dark = 0.6 * image.mean(axis=2) / 255
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(dark, cmap="gray", vmin=0, vmax=1, extent=extent)
    heat = weights / max(float(weights.max()), np.finfo(float).tiny)
    axes.imshow(heat, cmap=HEATMAP, vmin=0, vmax=1, extent=extent, interpolation="bilinear")
    axes.autoscale(False)  # a mark at the border must not shift the image


def mark_query(axes: Axes, query_yx: tuple[float, float], size: float) -> None:
    """Draw a ring of `size` points around a position in pixels of the image."""
    y, x = query_yx
    axes.plot(
        x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=MARK, markeredgewidth=1.8,
        path_effects=[withStroke(linewidth=3.6, foreground="black")], clip_on=False,
    )  # fmt: skip
