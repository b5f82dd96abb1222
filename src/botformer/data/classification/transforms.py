"""An RGB image of any size -> the square input of the network, uint8. Normalisation follows on the device.

Only Pillow is used, except for RandAugment: every worker process would wait seconds for torchvision or timm.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from botformer.data.image_io import EncodedImage
from botformer.data.resampling import Box, flip, resample
from botformer.errors import InputError
from botformer.image_normalization import IMAGENET_MEAN
from botformer.recipes.schema import Images

Transform = Callable[[Image.Image | EncodedImage], Tensor]
"""RGB image -> uint8 (3, size, size)."""

_ASPECT_RATIO = (3 / 4, 4 / 3)
_PADDING_PX = 4
MARGIN = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
"""Colour beside a letterboxed image: about 0 once it is normalised."""


def training_transform(images: Images) -> Transform:
    """Random, from Python's and NumPy's global generators: after `seeding.seed_host` the result is fixed.

    `augmentation` "crop" and "none" first resize an image of another size as evaluation does, to `size`.
    """
    distort = None
    if images.rand_augment_layers:
        from timm.data.auto_augment import rand_augment_transform

        # timm's magnitudes are those of the published TensorFlow code: 10 of 10 is full strength, and more is allowed
        # for (mmax). RandAugment applies every operation it draws (p1.0); timm's default skips half of them.
        layers, magnitude = images.rand_augment_layers, images.rand_augment_magnitude
        distort = rand_augment_transform(f"rand-m{magnitude}-n{layers}-p1.0-mmax30", {})
    return _Training(images, distort)


def evaluation_transform(images: Images) -> Transform:
    """Resize the shorter side to `size / evaluation_crop`, then crop the centre. An image that fits stays as it is.

    `fit` "letterbox": resize the longer side to `size`; nothing is cropped.
    """
    if not 0 < images.evaluation_crop <= 1:
        raise InputError(
            f"images.evaluation_crop is {images.evaluation_crop}; a fraction above 0 and up to 1 is expected"
        )
    return _Evaluation(images)


@dataclass(frozen=True)
class _Training:
    images: Images
    distort: Callable[[Image.Image], Image.Image] | None

    def __call__(self, image: Image.Image | EncodedImage) -> Tensor:
        size = self.images.size
        if self.images.augmentation == "standard":
            pixels = _random_part(image, self.images)
        else:
            pixels = _whole(image, self.images, evaluation_crop=1.0)
        if self.images.augmentation == "crop":
            x, y = (_PADDING_PX + random.randint(-_PADDING_PX, _PADDING_PX) for _ in range(2))
            padded = np.zeros((size + 2 * _PADDING_PX, size + 2 * _PADDING_PX, 3), np.uint8)  # black around the image
            padded[_PADDING_PX:-_PADDING_PX, _PADDING_PX:-_PADDING_PX] = pixels
            pixels = padded[y : y + size, x : x + size]
        if self.images.hflip and self.images.augmentation != "none" and random.random() < 0.5:
            pixels = flip(pixels)
        if self.distort is not None:
            pixels = np.asarray(self.distort(Image.fromarray(pixels)))
        return _to_tensor(pixels)


@dataclass(frozen=True)
class _Evaluation:
    images: Images

    def __call__(self, image: Image.Image | EncodedImage) -> Tensor:
        return _to_tensor(_whole(image, self.images, self.images.evaluation_crop))


def _whole(image: Image.Image | EncodedImage, images: Images, evaluation_crop: float) -> np.ndarray:
    """Letterboxed, or its middle."""
    if images.fit == "letterbox":
        return _letterboxed(image, (0.0, 0.0, image.width, image.height), images.size)
    box = centre_box(image.width, image.height, images.size, evaluation_crop)
    return _resized(image, box, (images.size, images.size))


def _random_part(image: Image.Image | EncodedImage, images: Images) -> np.ndarray:
    """A letterboxed part has about the aspect ratio of its image, so that it shows no other margins than the whole."""
    if images.fit == "letterbox":
        box = random_box(image.width, image.height, images.least_area, image.width / image.height)
        return _letterboxed(image, box, images.size, cut=True)
    box = random_box(image.width, image.height, images.least_area)
    return _resized(image, box, (images.size, images.size), cut=True)


def random_box(width: int, height: int, least_area: float = 0.08, about: float = 1.0) -> Box:
    """`least_area` to all of the image's area, 3:4 to 4:3 times the aspect ratio `about`; after ten failed draws the
    largest allowed centred box."""
    low, high = (about * ratio for ratio in _ASPECT_RATIO)
    for _ in range(10):
        area = random.uniform(least_area, 1.0) * width * height
        ratio = math.exp(random.uniform(math.log(low), math.log(high)))
        w, h = max(1, round(math.sqrt(area * ratio))), max(1, round(math.sqrt(area / ratio)))
        if w <= width and h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    w, h = min(width, height * high), min(height, width / low)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, left + w, top + h


def centre_box(width: int, height: int, size: int, crop: float) -> Box:
    """The box of the image that the centre crop of the resized image shows.

    Resizing this box gives what resizing the image (shorter side to `size / crop`, rounded down as timm does) and
    cropping it gives, but the parts that are cropped away cost nothing: an image of 1x100000 pixels is no problem.
    """
    shorter_px = int(size / crop)
    if width <= height:
        resized_width, resized_height = shorter_px, int(shorter_px * height / width)
    else:
        resized_width, resized_height = int(shorter_px * width / height), shorter_px
    left, top = round((resized_width - size) / 2), round((resized_height - size) / 2)
    x_scale, y_scale = width / resized_width, height / resized_height
    return left * x_scale, top * y_scale, (left + size) * x_scale, (top + size) * y_scale


def _resized(image: Image.Image | EncodedImage, box: Box, size: tuple[int, int], cut: bool = False) -> np.ndarray:
    """uint8 (height, width, 3) of `size` (width, height). Bicubic, antialiased; a box of exactly that many whole pixels
    is copied unchanged."""
    return resample(image, box, size, Image.Resampling.BICUBIC, cut)


def _letterboxed(image: Image.Image | EncodedImage, box: Box, size: int, cut: bool = False) -> np.ndarray:
    """uint8 (size, size, 3): the box in the middle of a grey square, its longer side resized to `size`."""
    width, height = box[2] - box[0], box[3] - box[1]
    scale = size / max(width, height)
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - width) // 2, (size - height) // 2
    square = np.full((size, size, 3), MARGIN, dtype=np.uint8)
    square[top : top + height, left : left + width] = _resized(image, box, (width, height), cut)
    return square


def _to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 (height, width, 3) -> uint8 (3, height, width), a view that is channels last; copied where it is no array
    of its own."""
    return torch.from_numpy(np.require(pixels, requirements=["C_CONTIGUOUS", "WRITEABLE"])).permute(2, 0, 1)
