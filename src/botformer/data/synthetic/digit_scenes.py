"""Generated detection data: several handwritten digits on a photograph, each with its class, box and mask.

The parts are those of `digits`, and so is the split: training and validation share neither a handwritten digit nor a
photograph. Strokes are made thicker than people wrote them. Masks are scored by IoU, and of a stroke four
pixels wide a contour that is one pixel off loses half: that would measure the resolution of the network, not whether it
found the shape.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.synthetic.cached_dataset import cached_dataset
from botformer.data.synthetic.digits import Parts, Split, crop_photograph, paint, place_glyph, provenance, read_parts
from botformer.errors import InputError

SCENE_PX = 160
LENGTH_PX = (28, 60)  # of a digit's longer side, before its strokes grow
MAX_DIGITS = 6
OVERLAP = 0.3  # a new digit covers less than this fraction of the smaller of two boxes, and of any other digit
CATEGORIES = tuple(Category(digit + 1, str(digit)) for digit in range(10))
GENERATOR = 1  # counts the versions of this file that draw different scenes from the same seed

_TRIES = 12  # to find a position and a colour for a digit, before it is left out


class Digit(NamedTuple):
    """One digit of a scene."""

    glyph: int
    """Its index in `Parts.glyphs`."""
    label: int
    """0 to 9."""
    mask: np.ndarray
    """bool (160, 160): its visible pixels, without those that another digit covers."""
    full_px: int
    """Pixels that it would have if no digit covered it."""


@dataclass(frozen=True)
class Scene:
    """An image and what is in it."""

    image: np.ndarray
    """uint8 (160, 160, 3)."""
    digits: tuple[Digit, ...]
    """One or more, from the back to the front."""


def draw_scene(parts: Parts, rng: np.random.Generator) -> Scene:
    """One to `MAX_DIGITS` digits on a crop of a photograph; digits for which there is no space are left out."""
    while True:
        image = crop_photograph(parts.photographs[rng.integers(len(parts.photographs))], SCENE_PX, rng)
        digits: tuple[Digit, ...] = ()
        for _ in range(rng.integers(1, MAX_DIGITS + 1)):
            image, digits = _add_digit(image, digits, parts, rng)
        if digits:  # otherwise the crop is too busy: take another
            return Scene(image, digits)


def write_digit_scenes(
    folder: Path,
    train: int = 4_000,
    validation: int = 200,
    seed: int = 0,
    on_image: Callable[[], object] = lambda: None,
) -> bool:
    """Write FOLDER/train, FOLDER/val and FOLDER/annotations as COCO has them, and FOLDER/digit_scenes.json about them.

    `train` and `validation` count scenes of 160 x 160 pixels. Category ids are 1 to 10, names "0" to "9"; shapes are
    run lengths of the visible part. A scene depends on the seed, its split and its number alone. The folder is
    created atomically; a finished one of the same parameters is used as it is. `on_image` is called after each
    scene. Returns whether it was written now.

    Raises `InputError` for impossible numbers, a missing extra, or a folder that holds something else.
    """
    parameters = {"train": train, "validation": validation, "seed": seed, "generator": GENERATOR}
    for name, minimum in {"train": 1, "validation": 1, "seed": 0}.items():
        if parameters[name] < minimum:
            raise InputError(f"digit scenes: {name} is {parameters[name]}, expected {minimum} or more")

    def fill(empty: Path) -> dict[str, object]:
        _write_split(empty, "train", "train", train, (seed, 0), on_image)
        _write_split(empty, "val", "validation", validation, (seed, 1), on_image)
        return {"about": _ABOUT, "sources": provenance()}

    return cached_dataset(folder, "digit_scenes", parameters, {"train": train, "val": validation}, fill)


_ABOUT = (
    "Synthetic scenes from real parts: handwritten digits of MNIST, their strokes thickened by one or two pixels, on "
    "crops of photographs. Training and validation share neither digits nor photographs. This is a demonstration, not "
    "a benchmark."
)


def _add_digit(
    image: np.ndarray, digits: tuple[Digit, ...], parts: Parts, rng: np.random.Generator
) -> tuple[np.ndarray, tuple[Digit, ...]]:
    """The scene with one more digit in front, or unchanged if there is no space for it."""
    glyph = int(rng.integers(len(parts.glyphs)))
    length = rng.uniform(*LENGTH_PX)
    for _ in range(_TRIES):
        coverage = _thicker(place_glyph(parts.glyphs[glyph], SCENE_PX, length, rng), length)
        mask = coverage >= 128
        if not _leaves_others_visible(mask, digits):
            continue
        painted = paint(image, coverage, rng)
        if painted is None:
            continue
        behind = (digit._replace(mask=digit.mask & ~mask) for digit in digits)
        return painted, (*behind, Digit(glyph, int(parts.labels[glyph]), mask, int(np.count_nonzero(mask))))
    return image, digits


def _thicker(coverage: np.ndarray, length: float) -> np.ndarray:
    """Every stroke grows by one pixel on each side, by two where the digit is large enough to keep its holes.

    Half-covered pixels stay half covered, but edges get steeper, and faint specks vanish, which would grow to squares.
    """
    by = 1 if length < 44 else 2
    steep = ((coverage.clip(64, 191) - 64) * 2).astype(np.uint8)
    grown = np.pad(steep, by)
    grown = reduce(np.maximum, (grown[at : at + SCENE_PX] for at in range(2 * by + 1)))
    return reduce(np.maximum, (grown[:, at : at + SCENE_PX] for at in range(2 * by + 1)))


def _leaves_others_visible(mask: np.ndarray, digits: tuple[Digit, ...]) -> bool:
    """Whether a digit of this mask may come in front of the others."""
    left, top, right, bottom = _box_xyxy(mask)
    for digit in digits:
        x1, y1, x2, y2 = _box_xyxy(digit.mask)
        common = max(0, min(right, x2) - max(left, x1)) * max(0, min(bottom, y2) - max(top, y1))
        if common >= OVERLAP * min((right - left) * (bottom - top), (x2 - x1) * (y2 - y1)):
            return False
        hidden = digit.full_px - np.count_nonzero(digit.mask & ~mask)
        if hidden >= OVERLAP * digit.full_px:
            return False
    return True


def _box_xyxy(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _write_split(
    folder: Path, name: str, split: Split, count: int, key: tuple[int, int], on_image: Callable[[], object]
) -> None:
    """FOLDER/NAME/*.png and FOLDER/annotations/instances_NAME.json."""
    parts, writer = read_parts(split), CocoWriter(CATEGORIES)
    (folder / name).mkdir()
    for number in range(count):
        scene = draw_scene(parts, np.random.default_rng([*key, number]))
        file = f"{number:05d}.png"
        # Photographs hardly repeat: without searching for repetitions files are as small and written in half the time.
        Image.fromarray(scene.image).save(folder / name / file, compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY)
        writer.add_image(file, SCENE_PX, SCENE_PX)
        for digit in scene.digits:
            writer.add_object(digit.mask, CATEGORIES[digit.label])
        on_image()
    writer.save(folder / "annotations" / f"instances_{name}.json")
