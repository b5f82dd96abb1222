"""Small images of values: over another image, or alone, and the bar that says what their colours mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib
import numpy as np
from PIL import Image

from botformer.plots.attention_overlay import HEATMAP, MARK
from botformer.plots.instances import brightening

TILE_PX = 280
"""Longer side of a tile."""
_ALIKE_FACTOR = 4.0
"""Up to which attention counts as even: the brightest colour is never less than so many times the mean, or noise would
glow."""
_LEAST_FACTOR = 1.5
_DIVERGING = "PuOr_r"
_GREY = 0.25
"""Of the image that a bar lies over."""


@dataclass(frozen=True)
class ColourScale:
    """Values -> colours, the same for every tile that is compared."""

    low: float
    high: float
    """Values of the ends of the scale; what lies beyond has the colour of the end."""
    logarithmic: bool
    over_image: bool
    """From transparent to bright, over a dark image; else from violet over white to orange."""
    ticks: tuple[tuple[float, str], ...]
    """Values and what stands at them."""

    def fractions(self, values: np.ndarray) -> np.ndarray:
        """Where values lie between the ends, from 0 to 1."""
        low, high = self.low, self.high
        if self.logarithmic:
            values = np.log(np.maximum(values, np.finfo(np.float32).tiny))
            low, high = math.log(low), math.log(high)
        return np.clip((values - low) / (high - low), 0, 1)

    def tick_places(self) -> list[tuple[float, str]]:
        """From 0 to 1 along the bar, and the words."""
        return [(float(self.fractions(np.array(value))), words) for value, words in self.ticks]

    def bar(self) -> np.ndarray:
        """uint8 (12, 256, 3): the colours from left to right."""
        fractions = np.tile(np.linspace(0, 1, 256), (12, 1))
        return self.colours(fractions, np.full((12, 256), _GREY))

    def colours(self, fractions: np.ndarray, dark: np.ndarray | None = None) -> np.ndarray:
        """uint8 (h, w, 3), over a grey image (h, w) from 0 to 1 if it is a scale for that."""
        if not self.over_image:
            return (255 * matplotlib.colormaps[_DIVERGING](fractions)[..., :3]).round().astype(np.uint8)
        assert dark is not None, "this scale lies over an image"
        rgba = HEATMAP(fractions)
        mixed = rgba[..., :3] * rgba[..., 3:] + dark[..., None] * (1 - rgba[..., 3:])
        return (255 * mixed).round().astype(np.uint8)


def times_mean_scale(largest: float) -> ColourScale:
    """Of attention as a multiple of what it would be if every cell got the same; by powers of 2."""
    steps = max(math.ceil(math.log2(max(largest, _ALIKE_FACTOR)) - 1e-6), 2)
    every = -(-steps // 5)
    ticks = tuple((2.0**step, f"{2**step}\N{MULTIPLICATION SIGN}") for step in range(0, steps + 1, every))
    return ColourScale(1.0, 2.0**steps, logarithmic=True, over_image=True, ticks=ticks)


def of_largest_scale() -> ColourScale:
    """Of values from 0 to 1 that are fractions of the largest."""
    return ColourScale(0.0, 1.0, logarithmic=False, over_image=True, ticks=((0.0, "0"), (0.5, "half"), (1.0, "most")))


def factor_scale(largest_logit: float) -> ColourScale:
    """Of logits around 0, which multiply the weight before the softmax by exp(logit)."""
    factor = max(math.exp(min(largest_logit, 40.0)), _LEAST_FACTOR)
    factor = 2.0 ** math.ceil(math.log2(factor) - 1e-6) if factor > _LEAST_FACTOR else factor
    end = math.log(factor)
    words = f"{factor:g}"
    ticks = ((-end, f"1/{words}"), (0.0, "1\N{MULTIPLICATION SIGN}"), (end, f"{words}\N{MULTIPLICATION SIGN}"))
    return ColourScale(-end, end, logarithmic=False, over_image=False, ticks=ticks)


def cosine_scale() -> ColourScale:
    """Of cosines."""
    return ColourScale(
        -1.0,
        1.0,
        logarithmic=False,
        over_image=False,
        ticks=((-1.0, "opposite"), (0.0, "unrelated"), (1.0, "the same")),
    )


def heat_tile(
    image: np.ndarray,
    values: np.ndarray,
    stride_px: int,
    scale: ColourScale,
    query_yx: tuple[float, float] | None = None,
) -> np.ndarray:
    """uint8 (h', w', 3), the longer side `TILE_PX`: values over the darkened image.

    Args:
        image: (h, w, 3) uint8.
        values: (H, W), cell (i, j) of which covers pixels from (i * stride_px, j * stride_px) on; the last ones may
            reach beyond the image.
        query_yx: what a ring is drawn around, in pixels of the image.
    """
    size = tile_size(image.shape[:2])
    gain = brightening(image)
    grey = np.asarray(
        Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC, reducing_gap=3.0).convert("L")
    )
    dark = 0.6 * np.minimum(grey * gain, 255) / 255
    rows, columns = (
        _between_cells(side, tile, cells, stride_px)
        for side, tile, cells in zip(image.shape[:2], size, values.shape, strict=True)
    )
    tile = scale.colours(scale.fractions(rows @ values @ columns.T), dark)
    return tile if query_yx is None else with_ring(tile, image.shape[:2], query_yx)


def image_tile(image: np.ndarray, query_yx: tuple[float, float] | None = None) -> np.ndarray:
    """uint8 (h', w', 3): the image (h, w, 3) uint8 alone, a dark one brightened, as `heat_tile` places it."""
    height, width = tile_size(image.shape[:2])
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))
    small = np.minimum(small * brightening(image), 255).astype(np.uint8)
    return small if query_yx is None else with_ring(small, image.shape[:2], query_yx)


def matrix_tile(values: np.ndarray, scale: ColourScale, mark_middle: bool = False) -> np.ndarray:
    """uint8 (h', w', 3): every value a rectangle of its colour; a ring in the middle says where offset 0 is."""
    size = tile_size(values.shape)
    rows, columns = (np.arange(tile) * cells // tile for tile, cells in zip(size, values.shape, strict=True))
    tile = scale.colours(scale.fractions(values))[rows[:, None], columns]
    return with_ring(tile, size, (size[0] / 2, size[1] / 2)) if mark_middle else tile


def tile_size(size: Sequence[int]) -> tuple[int, int]:
    """Height and width of the tile of an image of (height, width)."""
    scale = TILE_PX / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def with_ring(tile: np.ndarray, image_size: Sequence[int], place_yx: tuple[float, float]) -> np.ndarray:
    """The tile with a ring around a place (y, x) of the image, light on dark, which is seen on everything."""
    scale = TILE_PX / max(image_size)
    y, x = (np.arange(side) + 0.5 for side in tile.shape[:2])
    distance = np.hypot(y[:, None] - place_yx[0] * scale, x[None] - place_yx[1] * scale)
    ringed = tile.astype(np.float64)
    for colour, width in (((0, 0, 0), 6.0), (tuple(bytes.fromhex(MARK[1:])), 3.0)):
        opacity = np.clip(width / 2 - np.abs(distance - 9) + 0.5, 0, 1)[..., None]
        ringed = ringed * (1 - opacity) + np.array(colour) * opacity
    return ringed.round().astype(np.uint8)


def with_box(tile: np.ndarray, image_size: Sequence[int], box_xyxy: Sequence[float]) -> np.ndarray:
    """The tile with the outline of a box, given in pixels of the image."""
    scale = TILE_PX / max(image_size)
    height, width = tile.shape[:2]
    x1, x2 = (int(np.clip(round(x * scale), 0, width - 1)) for x in box_xyxy[::2])
    y1, y2 = (int(np.clip(round(y * scale), 0, height - 1)) for y in box_xyxy[1::2])
    boxed = tile.copy()
    for colour, out in (((0, 0, 0), 1), (tuple(bytes.fromhex(MARK[1:])), 0)):
        top, left = max(y1 - out, 0), max(x1 - out, 0)
        bottom, right = min(y2 + out, height - 1), min(x2 + out, width - 1)
        for rows, columns in (
            (slice(top, top + 2), slice(left, right + 1)),
            (slice(max(bottom - 1, 0), bottom + 1), slice(left, right + 1)),
            (slice(top, bottom + 1), slice(left, left + 2)),
            (slice(top, bottom + 1), slice(max(right - 1, 0), right + 1)),
        ):
            boxed[rows, columns] = colour
    return boxed


def around_box(
    image: np.ndarray, values: np.ndarray, stride_px: int, box_xyxy: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The part of an image around a box, its longer side of it free on every side, with the cells that lie there.

    Returns the pixels, the values, and the (left, top) of both in pixels of the image: a corner of a cell, so that
    `heat_tile` puts the values where they are.
    """
    x1, y1, x2, y2 = box_xyxy
    margin = max(x2 - x1, y2 - y1)
    height, width = image.shape[:2]
    top, left = (max(int((low - margin) // stride_px), 0) for low in (y1, x1))
    bottom, right = (
        math.ceil(min(max(high + margin, first * stride_px + 1), side) / stride_px)
        for high, first, side in ((y2, top, height), (x2, left, width))
    )
    part = image[top * stride_px : bottom * stride_px, left * stride_px : right * stride_px]
    return part, values[top:bottom, left:right], (left * stride_px, top * stride_px)


def encoded(tile: np.ndarray, sharp: bool = False) -> bytes:
    """A JPEG file, or, of what is `sharp`, a PNG file."""
    content = BytesIO()
    if sharp:
        Image.fromarray(tile).save(content, "PNG", optimize=True)
    else:
        Image.fromarray(tile).save(content, "JPEG", quality=86)
    return content.getvalue()


def _between_cells(side_px: int, tile_px: int, cells: int, stride_px: int) -> np.ndarray:
    """(tile_px, cells): weights of the cells in each pixel of a tile, linear between the middles of two cells."""
    at = (np.arange(tile_px) + 0.5) * side_px / tile_px / stride_px - 0.5
    at = np.clip(at, 0, cells - 1)
    wide = max(1.0, side_px / tile_px / stride_px)  # a tile with fewer pixels than cells shows their means
    weights = np.clip(1 - np.abs(at[:, None] - np.arange(cells)) / wide, 0, 1)
    return weights / weights.sum(1, keepdims=True)
