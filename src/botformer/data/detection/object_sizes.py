"""How large the objects of a data set come out on the canvas that a detector sees, said before anything is trained."""

import logging
import math
from dataclasses import dataclass

import numpy as np

from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.transforms import SMALLEST_PX
from botformer.recipes.schema import SMALLEST_TILE_PX

log = logging.getLogger("botformer.data")

_LEGIBLE_PX = 4.0
"""The finest feature map of a detector has a cell for so many pixels: what is smaller shares one with others."""

_EXEMPT = 0.01
"""The smallest objects, as a fraction of all, that a size or a tile that is proposed need not show."""

_MULTIPLE_OF_PX = 32


@dataclass(frozen=True)
class SmallObjects:
    """Objects that are too small on a canvas."""

    text: str
    """How many are, in words."""
    fix: str
    """The size of a canvas or of tiles that would do."""
    count: int
    many: bool
    """Whether some cannot be learnt at all, or more than the smallest hundredth are hard to see."""


def say_small_objects(dataset: DetectionDataset, canvas: float, tile: int = 0) -> None:
    """Log what `small_objects` finds."""
    found = small_objects(dataset, canvas, tile)
    if found is not None:
        level = logging.WARNING if found.many else logging.INFO
        log.log(level, "%s: %s. %s", dataset.where, found.text, found.fix)


def small_objects(dataset: DetectionDataset, canvas: float, tile: int = 0) -> SmallObjects | None:
    """How many objects are narrower or lower than 1 and 4 px on a canvas that the whole image, or a tile of so many
    pixels of the file, just fits. None where all have 4 px."""
    sides, longest = dataset.object_sizes.astype(np.float64).T
    if tile:
        longest = np.minimum(longest, tile)
    seen = sides / longest * canvas
    lost, small = (int((seen < limit).sum()) for limit in (SMALLEST_PX, _LEGIBLE_PX))
    if not small:
        return None
    return SmallObjects(
        f"on the canvas of {round(canvas)} px {lost} of {len(seen)} objects ({100 * lost / len(seen):.1f} %) are "
        f"narrower or lower than 1 px, too little to learn or to find; {small} ({100 * small / len(seen):.1f} %) are "
        "under 4 px",
        _what_would_do(sides, longest, canvas),
        small,
        bool(lost) or small >= _EXEMPT * len(seen),
    )


def _what_would_do(sides: np.ndarray, longest: np.ndarray, canvas: float) -> str:
    size = math.ceil(_LEGIBLE_PX / _all_but_the_smallest(sides / longest) / _MULTIPLE_OF_PX - 1e-6) * _MULTIPLE_OF_PX
    tile = int(_all_but_the_smallest(sides) * canvas / _LEGIBLE_PX + 1e-6)
    tiles = (
        f"; or tiles of {tile} px, into which botformer predict cuts images with --tile {tile}, and which training "
        "images would have to be cut into"
        if tile >= SMALLEST_TILE_PX
        else ""
    )
    return f"99 % of them would have 4 px with --images.size {size} in training{tiles}"


def _all_but_the_smallest(values: np.ndarray) -> float:
    return float(np.quantile(values, _EXEMPT, method="lower"))
