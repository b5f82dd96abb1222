"""Normalisation by ImageNet's statistics, as torchvision's, timm's and botformer's weights expect it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from botformer.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Red, green, blue; for values in 0..1."""


def normalize_bytes(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> float32, per channel (value / 255 - mean) / std; on the device of the input."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None] * 255
    scale = 1 / (torch.tensor(IMAGENET_STD, device=images.device)[:, None, None] * 255)
    return (images - mean) * scale


def normalize(images: Tensor) -> Tensor:
    """(B, 3, H, W) floats in 0..1 -> (value - mean) / std per channel, in the dtype and on the device of the input."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean) / std


def as_rgb_images(images: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """RGB images, (B, 3, h, w) or a list of (3, h, w), uint8 or floats in 0..1 -> a list of (3, h, w) floats in 0..1.

    Raises:
        InputError: something else, naming the image.
    """
    if isinstance(images, Tensor) and images.ndim == 3:
        raise InputError(f"images must be a batch (B, 3, h, w) or a list, got one image {tuple(images.shape)}")
    converted = []
    for index, image in enumerate(images):
        check_shape(index, image)
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise InputError(f"image {index} must be uint8 or floats in 0..1, got {image.dtype}")
        image = image / 255 if image.dtype == torch.uint8 else image
        check_range(index, image)
        converted.append(image)
    return converted


def check_shape(index: int, image: object) -> None:
    """Raises `InputError` unless image number `index` is a tensor (3, height, width) with pixels."""
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3 or not image.numel():
        found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        raise InputError(f"image {index} must be a tensor (3, height, width), red green blue, got {found}")


def check_range(index: int, image: Tensor) -> None:
    """Raises `InputError` unless the floats of image number `index` lie in 0..1; waits for the image's device."""
    low, high = torch.stack(image.detach().aminmax()).tolist()
    # Resampling and colour jitter overshoot a little; bytes and normalised images do by far. NaN fails both.
    if not (low >= -0.5 and high <= 1.5):
        raise InputError(
            f"image {index} must lie in 0..1, got {low:g} to {high:g}; divide bytes by 255, and do not normalise"
        )
