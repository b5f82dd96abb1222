"""What `botformer.explain` computes as matplotlib figures, without pyplot: show them in a notebook or save them."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from botformer.plots import style
from botformer.plots.heat_tiles import (
    ColourScale,
    cosine_scale,
    factor_scale,
    heat_tile,
    image_tile,
    matrix_tile,
    of_largest_scale,
    tile_size,
    times_mean_scale,
)

Term = Literal["attention", "content_alone", "position_alone"]
_ROW = 0.42
"""Inches of a row's title and of the words below it."""
_BAR = 0.75


class Heads(Protocol):
    """`botformer.explain.LayerHeads`."""

    @property
    def name(self) -> str: ...
    @property
    def stride_px(self) -> int: ...
    @property
    def attention(self) -> np.ndarray: ...
    @property
    def content_alone(self) -> np.ndarray | None: ...
    @property
    def position_alone(self) -> np.ndarray | None: ...


class Cells(Protocol):
    """`botformer.explain.CellMap`."""

    @property
    def values(self) -> np.ndarray: ...
    @property
    def stride_px(self) -> int: ...


class Positions(Protocol):
    """`botformer.explain.LayerPositions`."""

    @property
    def name(self) -> str: ...
    @property
    def is_relative(self) -> bool: ...
    @property
    def tables(self) -> dict[str, np.ndarray]: ...
    @property
    def logits(self) -> np.ndarray: ...
    def similarity(self, table: str) -> np.ndarray: ...


class Effect(Protocol):
    """`botformer.explain.PositionEffect`."""

    @property
    def with_positions(self) -> np.ndarray: ...
    @property
    def without_positions(self) -> np.ndarray: ...


def figure_attention_heads(
    image: np.ndarray, layers: Sequence[Heads], query_yx: tuple[float, float], term: Term = "attention"
) -> Figure:
    """Every head over the darkened image, a row per layer, with one scale for all.

    Args:
        image: (h, w, 3) uint8, `SeenImage.image`.
        layers: of `botformer.explain.attention_heads`; those without the term are left out.
        query_yx: the query in pixels of the image; a ring is drawn around it.
        term: the attention, or that by content or by position alone.
    """
    rows = [(layer, weights) for layer in layers if (weights := getattr(layer, term)) is not None]
    columns = max((len(weights) for _, weights in rows), default=1)
    figure, panels, bar = _grid(len(rows), columns, image.shape[:2])
    scale = times_mean_scale(max((float(weights.max()) * weights[0].size for _, weights in rows), default=1.0))
    for (layer, weights), line in zip(rows, panels, strict=False):
        for number, (axes, head) in enumerate(zip(line, weights * weights[0].size, strict=False), start=1):
            _show(axes, heat_tile(image, head, layer.stride_px, scale, query_yx))
            axes.set_xlabel(f"head {number}, up to {head.max():.1f}\N{MULTIPLICATION SIGN}", fontsize=8)
        style.head(line[0], layer.name)
    _draw_bar(bar, scale, "times the mean weight; below 1 it is dark")
    return figure


def figure_class_maps(
    image: np.ndarray,
    rollout: Cells | None = None,
    cam: Cells | None = None,
    query_yx: tuple[float, float] | None = None,
) -> Figure:
    """The image, attention rollout and Grad-CAM side by side, as far as they are given.

    Args:
        image: (h, w, 3) uint8, `SeenImage.image`.
        rollout: of `botformer.explain.rollout`.
        cam: of `botformer.explain.grad_cam`, or `DetectionCam.cam`.
        query_yx: what a ring is drawn around, in pixels of the image.
    """
    figure, (panels,), bar = _grid(1, 3, image.shape[:2])
    _show(panels[0], image_tile(image, query_yx))
    style.head(panels[0], "image")
    if rollout is not None:
        times = rollout.values * rollout.values.size
        scale = times_mean_scale(float(times.max()))
        _show(panels[1], heat_tile(image, times, rollout.stride_px, scale, query_yx))
        style.head(panels[1], "attention rollout")
        words = f"up to {times.max():.1f} times the mean; the brightest colour is {scale.high:g}"
        panels[1].set_xlabel(words, fontsize=8, color=style.FAINT)
    if cam is not None:
        fractions = cam.values / max(float(cam.values.max()), np.finfo(np.float32).tiny)
        _show(panels[2], heat_tile(image, fractions, cam.stride_px, of_largest_scale(), query_yx))
        style.head(panels[2], "Grad-CAM")
    _draw_bar(bar, of_largest_scale(), "Grad-CAM, as a fraction of its largest value")
    return figure


def figure_position_maps(layers: Sequence[Positions]) -> Figure:
    """What positions add to the logits of the image's mean query, a row per layer and a column per head.

    Args:
        layers: of `botformer.explain.position_maps`.
    """
    centred = [layer.logits - layer.logits.mean((1, 2), keepdims=True) for layer in layers]
    columns = max((len(logits) for logits in centred), default=1)
    shape = centred[0].shape[1:] if centred else (1, 1)
    figure, panels, bar = _grid(len(layers), columns, shape)
    scale = factor_scale(max((float(np.abs(logits).max()) for logits in centred), default=0.0))
    for layer, logits, line in zip(layers, centred, panels, strict=False):
        for number, (axes, head) in enumerate(zip(line, logits, strict=False), start=1):
            _show(axes, matrix_tile(head, scale, mark_middle=layer.is_relative))
            axes.set_xlabel(f"head {number}", fontsize=8)
        style.head(line[0], f"{layer.name}, over {'offsets (dy, dx)' if layer.is_relative else 'positions'}")
    _draw_bar(bar, scale, "factor of the weight, from the mean of the head")
    return figure


def figure_position_similarity(layers: Sequence[Positions]) -> Figure:
    """The cosine between every two entries of each table, a row per layer.

    Args:
        layers: of `botformer.explain.position_maps`.
    """
    figure, panels, bar = _grid(len(layers), 4, (1, 1))
    scale = cosine_scale()
    for layer, line in zip(layers, panels, strict=False):
        for axes, name in zip(line, layer.tables, strict=False):
            _show(axes, matrix_tile(layer.similarity(name), scale))
            axes.set_xlabel(name, fontsize=8)
        style.head(line[0], layer.name)
    _draw_bar(bar, scale, "cosine between two entries")
    return figure


def figure_without_positions(names: Sequence[str], effect: Effect, most: int = 5) -> Figure:
    """Bars of the most probable classes with positions and without.

    Args:
        names: of the classes, in the order of the probabilities.
        effect: of `botformer.explain.without_positions`.
        most: classes that are shown.
    """
    before, after = effect.with_positions, effect.without_positions
    chosen = np.argsort(-np.maximum(before, after), kind="stable")[:most]
    figure = style.new_figure(0.9 + 0.5 * len(chosen))
    axes = figure.subplots()
    style.quiet(axes)
    for offset, values, label, colour in (
        (-0.2, before, "with positions", style.LINES[0]),
        (0.2, after, "without", style.LINES[4]),
    ):
        axes.barh(np.arange(len(chosen)) + offset, values[chosen], height=0.36, color=colour, label=label)
    axes.set_yticks(
        np.arange(len(chosen)), [style.shorten(names[int(index)], 40) for index in chosen], parse_math=False
    )
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel("probability", fontsize=9, color=style.FAINT)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return figure


def _grid(rows: int, columns: int, size: Sequence[int]) -> tuple[Figure, list[list[Axes]], Axes]:
    """A figure of report width, its panels without frames, and the axes of a scale bar below them."""
    rows = max(rows, 1)
    height, width = tile_size(size)
    tall = min(style.WIDTH / columns * height / width, 4.0) + _ROW
    figure = style.new_figure(rows * tall + _BAR, padding=0.05)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=[rows * tall, _BAR])[:, 0]
    panels = [list(line) for line in above.subplots(rows, columns, squeeze=False)]
    for line in panels:
        for axes in line:
            style.bare(axes)
    left, bar, right = below.subplots(1, 3, width_ratios=[1, 2, 1])
    left.set_axis_off()
    right.set_axis_off()
    return figure, panels, bar


def _show(axes: Axes, tile: np.ndarray) -> None:
    axes.imshow(tile)


def _draw_bar(axes: Axes, scale: ColourScale, words: str) -> None:
    axes.imshow(scale.bar(), aspect="auto", extent=(0, 1, 0, 1))
    axes.set_yticks([])
    places = scale.tick_places()
    axes.set_xticks([place for place, _ in places], [words for _, words in places], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(words, fontsize=8, color=style.FAINT)
