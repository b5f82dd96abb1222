"""Images of any size on canvases of one size."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from botformer.errors import InputError
from botformer.image_normalization import check_range, check_shape


@dataclass(frozen=True)
class PaddedImages:
    """B images, each in the top left corner of its canvas."""

    pixels: Tensor
    """(B, C, height, width) floats in 0..1; 0 beyond the image."""
    sizes: list[tuple[int, int]]
    """(height, width) of each image."""

    def padding_mask(self) -> Tensor | None:
        """(B, height, width) bool: pixels right of and below the image; None where every image fills its canvas.

        Made on the device of the pixels from the sizes, which the host knows: nothing waits.
        """
        height, width = self.pixels.shape[2:]
        if all(size == (height, width) for size in self.sizes):
            return None
        rows = torch.arange(height, device=self.pixels.device)
        columns = torch.arange(width, device=self.pixels.device)
        heights, widths = torch.tensor(self.sizes, device=self.pixels.device)[:, :, None].unbind(1)
        return (rows >= heights)[:, :, None] | (columns >= widths)[:, None, :]


def pad_images(images: Sequence[Tensor], size: tuple[int, int]) -> PaddedImages:
    """Images (C, h, w), none larger than `size`, on canvases of `size` (height, width)."""
    pixels = images[0].new_zeros(len(images), len(images[0]), *size)
    for canvas, image in zip(pixels, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return PaddedImages(pixels, [(image.shape[1], image.shape[2]) for image in images])


def check_images(images: Sequence[Tensor], channels: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Images on `device` in a floating-point `dtype`.

    Raises:
        InputError: naming the image that is not (channels, height, width) floats in 0..1.
    """
    checked = []
    for index, image in enumerate(images):
        check_shape(index, image, channels)
        if not image.is_floating_point():
            raise InputError(
                f"image {index} must be floats in 0..1, got {image.dtype}; divide bytes by 255, or use "
                "`detector.preprocess`, which takes them"
            )
        image = image.to(device, dtype)
        check_range(index, image)
        checked.append(image)
    return checked


def shrink_to_fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, h, w), scaled down with its aspect ratio if it is larger than `size` (height, width)."""
    height, width = image.shape[1:]
    scale = min(size[0] / height, size[1] / width)
    if scale >= 1:
        return image
    smaller = [max(1, round(height * scale)), max(1, round(width * scale))]
    return F.interpolate(image[None], size=smaller, mode="bilinear", antialias=True)[0]


def group_by_padded_size(images: Sequence[Tensor], multiple: int) -> dict[tuple[int, int], list[int]]:
    """{(height, width) rounded up to `multiple`: indices of the images}."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, image in enumerate(images):
        size = tuple(-(-side // multiple) * multiple for side in image.shape[1:])
        groups.setdefault((size[0], size[1]), []).append(index)
    return groups
