"""Where the overlapping tiles of a large image lie."""

from typing import NamedTuple

_OVERLAP = 4
"""Neighbouring tiles overlap by a quarter of their side, or more."""


class Tile(NamedTuple):
    """A part of an image in its pixels, right and bottom excluded; the order is Pillow's."""

    left: int
    top: int
    right: int
    bottom: int


def tile_grid(size: tuple[int, int], tile_px: int) -> list[Tile]:
    """Tiles of an image of `size` (height, width), row by row. Along a side that is longer than `tile_px` all tiles are
    `tile_px` long; a shorter side is that of the image."""
    height, width = size
    return [
        Tile(left, top, min(left + tile_px, width), min(top + tile_px, height))
        for top in _starts(height, tile_px)
        for left in _starts(width, tile_px)
    ]


def _starts(length: int, tile_px: int) -> list[int]:
    """Where tiles start along a side: as few as overlap enough, evenly spread, the last one ending at the end."""
    if length <= tile_px:
        return [0]
    steps = -(-(length - tile_px) // (tile_px - tile_px // _OVERLAP))
    return [number * (length - tile_px) // steps for number in range(steps + 1)]
