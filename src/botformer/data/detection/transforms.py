"""An image with objects -> the canvas the detector sees, and its objects on that canvas.

Rotated, flipped, scaled, and then cropped or padded to the canvas, in this order; one `CanvasTransform` says how,
and acts on pixels, boxes and key points alike. Shapes are never transformed: a mask is kept relative to its box, so
the part of the box that is seen is traced back to the image as it was read, and the shape is cut out there, at full
precision.

Pillow and NumPy alone: torchvision's transforms draw the same scales and crops, but know no polygons or run lengths,
so a thousand objects would be a thousand images, and importing them takes every worker process seconds.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from botformer.data.detection.dataset import Annotation, ImageRecord
from botformer.data.detection.keypoints import PIXEL_MIDDLE
from botformer.data.detection.mask_targets import Box, crop_mask
from botformer.data.image_io import EncodedImage
from botformer.data.resampling import flip, resample
from botformer.recipes.schema import DetectionImages

SMALLEST_PX = 1.0
"""Of a box on the canvas; what is narrower or lower cannot be learnt from."""


@dataclass(frozen=True)
class CanvasTransform:
    """How an image comes onto its canvas."""

    image_px: tuple[int, int]
    """(width, height) as read."""
    rot90: int
    """Quarter turns against the clock."""
    hflip: bool
    """Left to right, after turning."""
    scaled_px: tuple[int, int]
    """(width, height) of the turned image after scaling, before anything is cut off."""
    corner_px: tuple[int, int]
    """(left, top) of the canvas within the scaled image."""
    canvas: tuple[int, int]
    """(height, width) of the canvas."""

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width) of what the image fills of the canvas, from the top left; the rest is padding."""
        width, height = self.scaled_px
        return min(self.canvas[0], height), min(self.canvas[1], width)

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per pixel of the turned image, (along x, along y)."""
        (width, height), (scaled_width, scaled_height) = self._turned_px, self.scaled_px
        return scaled_width / width, scaled_height / height

    def draw(self, image: Image.Image | EncodedImage) -> Tensor:
        """RGB image -> uint8 (3, *canvas), channels last in memory, 0 where the image is not."""
        height, width = self.extent
        left, top, right, bottom = self.back(np.array([[0.0, 0.0, width, height]]))[0].tolist()
        # Only what the canvas shows is resampled, and turned after that.
        shown = (height, width) if self.rot90 % 2 else (width, height)
        part = resample(image, (left, top, right, bottom), shown, Image.Resampling.BILINEAR)
        part = np.rot90(part, self.rot90)
        canvas = np.zeros((*self.canvas, 3), dtype=np.uint8)
        canvas[:height, :width] = flip(part) if self.hflip else part
        return torch.from_numpy(canvas).permute(2, 0, 1)

    def boxes(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """(n, 4) in pixels of the image as read -> (n, 4) in pixels of the canvas, not cut to it."""
        boxes, (width, _) = _turn(boxes_xyxy, self.rot90, self.image_px)
        if self.hflip:
            boxes = _mirror(boxes, width)
        return boxes * np.array(self.scale * 2) - np.array(self.corner_px * 2)

    def points(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) x, y as `boxes` has them -> (n, 2) in pixels of the canvas; some may lie beside it."""
        return self.boxes(np.concatenate([points, points], 1))[:, :2]

    def back(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """The inverse of `boxes`."""
        boxes = (boxes_xyxy + np.array(self.corner_px * 2)) / np.array(self.scale * 2)
        if self.hflip:
            boxes = _mirror(boxes, self._turned_px[0])
        return _turn(boxes, -self.rot90 % 4, self._turned_px)[0]

    def crop(self, annotation: Annotation, box_xyxy: np.ndarray, size: int) -> np.ndarray:
        """uint8 (size, size): the object's shape within a box (4,) of the canvas."""
        assert annotation.segmentation is not None
        x1, y1, x2, y2 = self.back(box_xyxy[None])[0].tolist()
        crop = np.rot90(crop_mask(annotation.segmentation, (x1, y1, x2, y2), size), self.rot90)
        return np.fliplr(crop) if self.hflip else crop

    @property
    def _turned_px(self) -> tuple[int, int]:
        width, height = self.image_px
        return (height, width) if self.rot90 % 2 else (width, height)


def random_transform(
    image_px: tuple[int, int], images: DetectionImages, objects_xyxy: Sequence[Box] = ()
) -> CanvasTransform:
    """For training, an image of (width, height) with these objects. From Python's global generator, which
    `seeding.seed_host` fixes."""
    rot90 = random.randrange(4) if images.rot90 else 0
    hflip = images.hflip and random.random() < 0.5
    canvas = images.size, images.size
    width, height = scaled = _scaled(image_px, rot90, canvas, random.uniform(*images.scale_jitter))
    furthest = max(0, width - images.size), max(0, height - images.size)
    corner = random.randint(0, furthest[0]), random.randint(0, furthest[1])
    transform = CanvasTransform(image_px, rot90, hflip, scaled, corner, canvas)
    if images.crop_around_object and objects_xyxy and any(furthest) and random.random() < images.crop_around_object:
        (box,) = replace(transform, corner_px=(0, 0)).boxes(np.array([random.choice(objects_xyxy)]))
        return replace(transform, corner_px=_corner_around(box, furthest, images.size))
    return transform


def _corner_around(box_xyxy: np.ndarray, furthest: tuple[int, int], size: int) -> tuple[int, int]:
    """(left, top) from 0 to `furthest` of a canvas that shows a box, or what it can of one that is larger."""
    corner = []
    for low, high, far in zip(box_xyxy[:2], box_xyxy[2:], furthest, strict=True):
        first, last = sorted((math.ceil(high) - size, math.floor(low)))
        corner.append(random.randint(min(max(first, 0), far), min(max(last, 0), far)))
    return corner[0], corner[1]


def fitting_transform(image_px: tuple[int, int], canvas: tuple[int, int]) -> CanvasTransform:
    """For evaluation: the whole image, of (width, height), as large as the canvas of (height, width) allows."""
    return CanvasTransform(image_px, 0, False, _scaled(image_px, 0, canvas, 1.0), (0, 0), canvas)


def transform_objects(
    image: ImageRecord, transform: CanvasTransform, mask_crop: int | None, flipped: list[int] | None = None
) -> dict[str, Any]:
    """The objects of an image that are seen on its canvas; with `mask_crop`, their shapes too, with `flipped`
    (`keypoints.flip_indices`) their key points.

    Returns arrays `boxes` (n, 4) float32 xyxy in pixels of the canvas and `labels` (n,) int64 from 1; with shapes also
    `mask_crops` (n, mask_crop, mask_crop) uint8, 0 or 1, each relative to its box, and `has_mask` (n,) bool. An object
    whose shape lies off the canvas is gone, though its box may not be. Crowds are background. With key points also
    `keypoints` (n, K, 3) float32: x, y in pixels of the canvas and v, which is 0 for what lies beside the image there.
    """
    objects = [annotation for annotation in image.annotations if not annotation.crowd]
    whole = _boxes(objects, transform)
    boxes, seen = _cut(whole, transform)
    placed: dict[str, Any] = {}
    if mask_crop is not None:
        crops = np.zeros((len(objects), mask_crop, mask_crop), dtype=np.uint8)
        for index in np.flatnonzero(seen):
            if objects[index].segmentation is not None:
                crops[index] = transform.crop(objects[index], boxes[index], mask_crop)
                is_cut = np.abs(whole[index] - boxes[index]).max() > 1e-6
                seen[index] = crops[index].any() or not is_cut
        placed["mask_crops"] = crops[seen]
        placed["has_mask"] = crops[seen].any((1, 2))
    if flipped is not None:
        placed["keypoints"] = _keypoints(objects, transform, flipped)[seen]
    labels = np.array([annotation.label for annotation in objects], dtype=np.int64)
    return placed | {
        "boxes": boxes[seen].astype(np.float32),
        "labels": labels[seen],
    }


def _scaled(image_px: tuple[int, int], rot90: int, canvas: tuple[int, int], scale: float) -> tuple[int, int]:
    width, height = image_px[::-1] if rot90 % 2 else image_px
    factor = min(scale * canvas[0] / height, scale * canvas[1] / width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _boxes(annotations: list[Annotation], transform: CanvasTransform) -> np.ndarray:
    """(n, 4) on the canvas, not cut to it."""
    return transform.boxes(np.array([a.box_xyxy for a in annotations], dtype=np.float64).reshape(-1, 4))


def _keypoints(annotations: list[Annotation], transform: CanvasTransform, flipped: list[int]) -> np.ndarray:
    """float32 (n, K, 3) on the canvas."""
    points = np.array([a.keypoints for a in annotations], dtype=np.float64).reshape(-1, len(flipped), 3)
    placed = transform.points(points[..., :2].reshape(-1, 2) + PIXEL_MIDDLE).reshape(*points.shape[:2], 2)
    height, width = transform.extent
    inside = ((placed >= 0) & (placed <= (width, height))).all(-1)
    visible = points[..., 2] * inside
    result = np.concatenate([placed * (visible > 0)[..., None], visible[..., None]], -1).astype(np.float32)
    return result[:, flipped] if transform.hflip else result


def _cut(boxes: np.ndarray, transform: CanvasTransform) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) cut to the image on its canvas, and which of them (n,) leave enough to see."""
    height, width = transform.extent
    cut = np.clip(boxes, 0, np.array([width, height, width, height]))
    return cut, (cut[:, 2:] - cut[:, :2]).min(1) >= SMALLEST_PX


def _turn(boxes: np.ndarray, rot90: int, size_px: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Boxes (n, 4) of an image of (width, height) turned against the clock, and its size then."""
    width, height = size_px
    for _ in range(rot90):
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack([y1, width - x2, y2, width - x1], 1)
        width, height = height, width
    return boxes, (width, height)


def _mirror(boxes: np.ndarray, width: int) -> np.ndarray:
    x1, y1, x2, y2 = boxes.T
    return np.stack([width - x2, y1, width - x1, y2], 1)
