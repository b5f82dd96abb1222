"""An image file -> the pixels that a network sees, prepared as in an evaluation, and where they lie in the image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from botformer.create.networks import canvas_of
from botformer.data.classification.transforms import centre_box, evaluation_transform
from botformer.data.detection.transforms import fitting_transform
from botformer.data.image_inputs import input_image
from botformer.data.image_io import EncodedImage
from botformer.errors import InputError
from botformer.recipes.schema import Images


@dataclass(frozen=True)
class SeenImage:
    """An image as a network sees it."""

    pixels: Tensor
    """(3, h, w) uint8: what the functions of `botformer.explain` take. Of a detector without the padding."""
    image_px: tuple[int, int]
    """(height, width) of the image, upright."""
    box_xyxy: tuple[float, float, float, float]
    """The part of the image that `pixels` show, in pixels of the image. A letterboxed image is less than that."""

    @property
    def image(self) -> np.ndarray:
        """(h, w, 3) uint8, as the figures of `botformer.plots` take it."""
        return np.ascontiguousarray(self.pixels.permute(1, 2, 0).numpy())

    def seen(self, y: float, x: float) -> tuple[float, float]:
        """A place (y, x) of the image in pixels of `pixels`; may lie beside them."""
        left, top, right, bottom = self.box_xyxy
        height, width = self.pixels.shape[1:]
        return (y - top) / (bottom - top) * height, (x - left) / (right - left) * width

    def in_image(self, y: float, x: float) -> tuple[float, float]:
        """The inverse of `seen`: a place (y, x) in pixels of `pixels` in pixels of the image."""
        left, top, right, bottom = self.box_xyxy
        height, width = self.pixels.shape[1:]
        return top + y / height * (bottom - top), left + x / width * (right - left)

    def pixel(self, y: int, x: int) -> tuple[float, float]:
        """The middle of the image's pixel (y, x), counted from 0, in pixels of `pixels`.

        Raises:
            InputError: the pixel lies outside the image, or in the border that is cropped off in an evaluation.
        """
        height, width = self.image_px
        if not (0 <= y < height and 0 <= x < width):
            raise InputError(
                f"pixel {y} {x} (y x, from 0) lies outside the image, which is {width}x{height} px: y from 0 to "
                f"{height - 1}, x from 0 to {width - 1}"
            )
        place = self.seen(y + 0.5, x + 0.5)
        if not all(0 <= at <= side for at, side in zip(place, self.pixels.shape[1:], strict=True)):
            left, top, right, bottom = self.box_xyxy
            raise InputError(
                f"pixel {y} {x} (y x) lies in the border that the network does not see; it sees y from {top:.0f} to "
                f"{bottom - 1:.0f}, x from {left:.0f} to {right - 1:.0f}"
            )
        return place


def see(model_config: Mapping[str, Any], image: Any) -> SeenImage:
    """What the network of `model_config` sees of an image: of all that `botformer.predictor` takes as one.

    Raises:
        InputError: it cannot be read.
    """
    with input_image(image, 1, model_config["images"]["max_megapixels"]).open() as opened:
        return _seen(model_config, opened)


def _seen(model_config: Mapping[str, Any], image: Image.Image | EncodedImage) -> SeenImage:
    if model_config["task"] == "detection":
        transform = fitting_transform(image.size, canvas_of(model_config))
        return seen_as(model_config, image.size, transform.draw(image))
    return seen_as(model_config, image.size, evaluation_transform(Images(**model_config["images"]))(image))


def seen_as(model_config: Mapping[str, Any], size_px: tuple[int, int], pixels: Tensor) -> SeenImage:
    """As `see`, of an image of (width, height) that is prepared already: `pixels` are what the network is given,
    (3, size, size), a detector's whole canvas."""
    width, height = size_px
    if model_config["task"] == "detection":
        transform = fitting_transform(size_px, canvas_of(model_config))
        seen_height, seen_width = transform.extent
        pixels = pixels[:, :seen_height, :seen_width]
        return SeenImage(pixels, (height, width), (0.0, 0.0, float(width), float(height)))
    images = Images(**model_config["images"])
    if images.fit == "letterbox":
        longer = max(width, height)
        scale = images.size / longer
        left, top = (
            -((images.size - max(1, round(side * scale))) // 2) * longer / images.size for side in (width, height)
        )
        return SeenImage(pixels, (height, width), (left, top, left + longer, top + longer))
    box = centre_box(width, height, images.size, images.evaluation_crop)
    return SeenImage(pixels, (height, width), box)
