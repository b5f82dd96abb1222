"""Synthetic scenes of darts with five key points: nose, left and right wing, left and right fin.

A dart is seen from above and points up, more or less; its left side is that of somebody who looks along it. Flips that
did not exchange left and right would make both equally likely on either side. Some darts reach over
the border of the image, and a patch may hide one of their points. Written as COCO's person_keypoints files are.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.detection.keypoints import PIXEL_MIDDLE, KeypointLayout, Keypoints
from botformer.data.synthetic.cached_dataset import cached_dataset

SCENE_PX = 64
LENGTH_PX = (24.0, 40.0)
MOST_DARTS = 2
GENERATOR = 1  # counts the versions of this file that draw different scenes from the same seed
CATEGORY = Category(1, "dart")
LAYOUT = KeypointLayout(
    ("nose", "left_wing", "right_wing", "left_fin", "right_fin"), ((0, 1), (0, 2), (1, 3), (2, 4), (3, 4))
)

# Along the heading and to the right of it, in lengths; the nose first, then as in LAYOUT.
_POINTS = np.array([(0.5, 0.0), (-0.1, -0.36), (-0.1, 0.36), (-0.5, -0.14), (-0.5, 0.14)])
_OUTLINE = np.array([(0.5, 0.0), (0.0, 0.1), (-0.1, 0.36), (-0.2, 0.12), (-0.5, 0.14), (-0.4, 0.0)])
_FINE = 4  # drawn so much larger, then averaged
_APART = 0.7  # of the mean of two lengths: the least distance between darts
_HIDDEN = 0.3  # of the darts have a point under a patch
_TRIES = 10
_TILT = 0.9  # radians from straight up


class Scene(NamedTuple):
    """An image and its darts."""

    image: np.ndarray
    """uint8 (64, 64, 3)."""
    masks: list[np.ndarray]
    """bool (64, 64): the whole dart within the image, patches or not."""
    keypoints: list[Keypoints]
    """As COCO has them: v is 2, 1 under a patch, 0 beside the image."""


def draw_scene(rng: np.random.Generator) -> Scene:
    """One to `MOST_DARTS` darts on a noisy, patched ground."""
    side = SCENE_PX * _FINE
    ground = rng.integers(30, 110, 3)
    canvas = Image.new("RGB", (side, side), tuple(int(c) for c in ground))
    draw = ImageDraw.Draw(canvas)
    for _ in range(6):
        _rectangle(draw, rng.random(2) * side, rng.uniform(0.05, 0.2, 2) * side, ground + rng.integers(-25, 26, 3))
    masks, keypoints = [], []
    for centre, length, heading in _places(rng):
        masks.append(_dart(draw, rng, centre, length, heading))
        points = _turned(_POINTS, heading) * length + centre
        hidden = int(rng.integers(len(points))) if rng.random() < _HIDDEN else -1
        if hidden >= 0:
            _rectangle(draw, points[hidden] * _FINE, np.full(2, 6.0 * _FINE), rng.integers(90, 160, 3))
        keypoints.append(tuple(_record(point, place == hidden) for place, point in enumerate(points)))
    image = np.asarray(canvas.reduce(_FINE), dtype=np.float64) + rng.normal(0, 6, (SCENE_PX, SCENE_PX, 1))
    return Scene(image.clip(0, 255).astype(np.uint8), masks, keypoints)


def write_keypoint_scenes(folder: Path, train: int, validation: int, seed: int = 0) -> bool:
    """So many scenes of each split as a COCO folder. Scene n of a split does not depend on their number.

    Returns whether they were written now; a finished folder of the same parameters is used as it is. Raises
    `InputError` for a folder that holds something else.
    """
    images = {"train": train, "val": validation}
    parameters: dict[str, Any] = {"generator": GENERATOR, "seed": seed} | images
    return cached_dataset(folder, "keypoint_scenes", parameters, images, partial(_write, images, seed))


def _write(images: Mapping[str, int], seed: int, folder: Path) -> dict[str, Any]:
    for number, (split, count) in enumerate(images.items()):
        (folder / split).mkdir()
        writer = CocoWriter([CATEGORY], LAYOUT)
        for index in range(count):
            scene = draw_scene(np.random.default_rng((seed, number, index)))
            name = f"{index:05}.png"
            Image.fromarray(scene.image).save(folder / split / name)
            writer.add_image(name, SCENE_PX, SCENE_PX)
            for mask, keypoints in zip(scene.masks, scene.keypoints, strict=True):
                writer.add_object(mask, CATEGORY, keypoints=keypoints)
        writer.save(folder / "annotations" / f"person_keypoints_{split}.json")
    return {"source": "drawn by botformer; no photographs"}


def _places(rng: np.random.Generator) -> list[tuple[np.ndarray, float, float]]:
    """Centre in pixels, length and heading of each dart; fewer than drawn by lot where there is no space."""
    places: list[tuple[np.ndarray, float, float]] = []
    for _ in range(rng.integers(1, MOST_DARTS + 1)):
        length, heading = float(rng.uniform(*LENGTH_PX)), float(rng.uniform(-_TILT, _TILT) - np.pi / 2)
        for _ in range(_TRIES):
            # Up to a third of a dart may lie beside the image.
            centre = rng.uniform(0.2 * length, SCENE_PX - 0.2 * length, 2)
            if all(np.linalg.norm(centre - other) > _APART * (length + size) / 2 * 1.4 for other, size, _ in places):
                places.append((centre, length, heading))
                break
    return places


def _dart(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, centre: np.ndarray, length: float, heading: float
) -> np.ndarray:
    """Draws one, and returns its mask."""
    mirrored = _OUTLINE[::-1] * (1, -1)
    outline = (_turned(np.concatenate([_OUTLINE, mirrored]), heading) * length + centre) * _FINE
    corners = [tuple(corner) for corner in outline.tolist()]
    draw.polygon(corners, fill=tuple(int(c) for c in rng.integers(150, 256, 3)))
    fine = Image.new("L", (SCENE_PX * _FINE, SCENE_PX * _FINE))
    ImageDraw.Draw(fine).polygon(corners, fill=255)
    return np.asarray(fine.reduce(_FINE)) >= 128


def _turned(points: np.ndarray, heading: float) -> np.ndarray:
    """(n, 2) along the heading and to the right of it -> (n, 2) x, y, where y points down."""
    forward = np.array([np.cos(heading), np.sin(heading)])
    right = np.array([-forward[1], forward[0]])
    return points[:, :1] * forward + points[:, 1:] * right


def _rectangle(draw: ImageDraw.ImageDraw, centre: np.ndarray, size: np.ndarray, colour: np.ndarray) -> None:
    corners = [*(centre - size / 2).tolist(), *(centre + size / 2).tolist()]
    draw.rectangle(corners, fill=tuple(int(c) for c in colour.clip(0, 255)))


def _record(point: np.ndarray, hidden: bool) -> tuple[float, float, int]:
    """COCO's coordinates name pixels, and count whole ones."""
    if point.min() < 0 or point.max() >= SCENE_PX:
        return 0, 0, 0
    x, y = (round(float(side), 2) for side in point - PIXEL_MIDDLE)
    return x, y, 1 if hidden else 2
