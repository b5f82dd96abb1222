"""Images -> what a network takes: per channel (value - mean) / std, ImageNet's unless others are given.

ImageNet's are what torchvision's, timm's and botformer's weights expect.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from botformer.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Red, green, blue; for values in 0..1."""


def normalize_bytes(
    images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """(B, C, H, W) uint8 -> float32, per channel (value / 255 - mean) / std; on the device of the input.

    `mean` and `std` as in `channel_statistics`.
    """
    mean, std = channel_statistics(images.shape[1], mean, std)
    shift = _of_channels(mean, images, torch.float32) * 255
    scale = 1 / (_of_channels(std, images, torch.float32) * 255)
    return (images - shift) * scale


def normalize(images: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> Tensor:
    """(B, C, H, W) floats in 0..1 -> (value - mean) / std per channel, in the dtype and on the device of the input.

    `mean` and `std` as in `channel_statistics`.
    """
    mean, std = channel_statistics(images.shape[1], mean, std)
    return (images - _of_channels(mean, images, images.dtype)) / _of_channels(std, images, images.dtype)


def _of_channels(values: Sequence[float], images: Tensor, dtype: torch.dtype) -> Tensor:
    """(C, 1, 1) beside the images, without waiting for their device."""
    return torch.tensor(values, dtype=dtype).to(images.device, non_blocking=images.is_cuda)[:, None, None]


def channel_statistics(
    channels: int, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each of `channels` channels, for values in 0..1.

    One value stands for all channels. ImageNet's (None) are red's, green's and blue's; where there are not three
    channels, their average stands for each.

    Raises:
        InputError: another number of values than channels, a value that is not finite, or a deviation of 0 or less.
    """
    given = {"mean": IMAGENET_MEAN if mean is None else mean, "std": IMAGENET_STD if std is None else std}
    of_channels: list[tuple[float, ...]] = []
    for (name, values), imagenet in zip(given.items(), (IMAGENET_MEAN, IMAGENET_STD), strict=True):
        try:
            values = tuple(float(value) for value in values)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{name} must be one number per channel, got {values!r}") from error
        if len(values) != channels and values == imagenet:
            values = (sum(imagenet) / len(imagenet),)
        values = values * channels if len(values) == 1 else values
        if len(values) != channels:
            raise InputError(f"{name} has {len(values)} values, but images have {channels} channels; give one for each")
        if not all(math.isfinite(value) and (value > 0 or name == "mean") for value in values):
            raise InputError(f"{name} is {values}; expected finite numbers{', above 0' if name == 'std' else ''}")
        of_channels.append(values)
    return of_channels[0], of_channels[1]


def as_float_images(images: Tensor | Sequence[Tensor], channels: int = 3) -> Sequence[Tensor]:
    """Images, (B, C, h, w) or a list of (C, h, w), uint8 or floats in 0..1 -> a list of (C, h, w) floats in 0..1.

    Raises:
        InputError: something else, naming the image.
    """
    if isinstance(images, Tensor) and images.ndim == 3:
        raise InputError(f"images must be a batch (B, {channels}, h, w) or a list, got one image {tuple(images.shape)}")
    converted = []
    for index, image in enumerate(images):
        check_shape(index, image, channels)
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise InputError(f"image {index} must be uint8 or floats in 0..1, got {image.dtype}")
        image = image / 255 if image.dtype == torch.uint8 else image
        check_range(index, image)
        converted.append(image)
    return converted


def check_shape(index: int, image: object, channels: int) -> None:
    """Raises `InputError` unless image number `index` is a tensor (channels, height, width) with pixels."""
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != channels or not image.numel():
        found = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
        what = f"({channels}, height, width){', red green blue' if channels == 3 else ''}"
        raise InputError(f"image {index} must be a tensor {what}, got {found}")


def check_range(index: int, image: Tensor) -> None:
    """Raises `InputError` unless the floats of image number `index` lie in 0..1; waits for the image's device."""
    low, high = torch.stack(image.detach().aminmax()).tolist()
    # Resampling and colour jitter overshoot a little; bytes and normalised images do by far. NaN fails both.
    if not (low >= -0.5 and high <= 1.5):
        raise InputError(
            f"image {index} must lie in 0..1, got {low:g} to {high:g}; divide bytes by 255, and do not normalise"
        )
