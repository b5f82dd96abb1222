"""A part of an image, resampled: of an image in memory, or of one that is decoded no larger than the part needs.

Pillow's filters. PyTorch computes them on bytes several times faster where the processor has AVX2, always with the same
result; it differs from Pillow's by one grey level here and there, very rarely by two.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from botformer.data.image_io import EncodedImage

Box = tuple[float, float, float, float]
"""xyxy (left, top, right, bottom) in pixels of the image, not rounded."""

_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
_WASTE = 2.0
"""New pixels along a side per pixel needed, up to which PyTorch is faster though it resamples the whole side."""


def resample(
    image: Image.Image | EncodedImage,
    box: Box,
    size: tuple[int, int],
    resampling: Image.Resampling,
    cut: bool = False,
) -> np.ndarray:
    """A box of an RGB image -> uint8 (height, width, 3), `size` is (width, height). Bilinear or bicubic, antialiased.

    A box of as many whole pixels is copied unchanged. A JPEG image whose box is at least twice as large as `size` is
    decoded 2, 4 or 8 times smaller, but never smaller than `size`.

    Pixels at the box's edge are weighted with those beside it, as if the whole image were resampled. `cut`: a box of
    whole pixels is cut out before, as torchvision's RandomResizedCrop does.
    """
    left, top, right, bottom = box
    decoded: Image.Image | np.ndarray
    if isinstance(image, EncodedImage):
        decoded, factor = image.decode(shrink=min((right - left) / size[0], (bottom - top) / size[1]))
        left, top, right, bottom = (side / factor for side in box)
    else:
        decoded = image
    width, height = decoded.size if isinstance(decoded, Image.Image) else decoded.shape[1::-1]
    # Rounding errors may exceed the edge by the last digit, which Pillow refuses.
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
    x, y = _window(left, right, width, size[0], cut), _window(top, bottom, height, size[1], cut)
    if x is None or y is None:
        return np.array(_as_image(decoded).resize(size, resampling, (left, top, right, bottom)))
    if isinstance(decoded, Image.Image):
        part = np.array(decoded.crop((x.first, y.first, x.last, y.last)))
    else:
        part = decoded[y.first : y.last, x.first : x.last]
    return _resized(part, (x.length, y.length), resampling)[y.cut(size[1]), x.cut(size[0])]


def flip(pixels: np.ndarray) -> np.ndarray:
    """Left to right, uint8 (height, width, 3). By PyTorch: NumPy is slow with three bytes per pixel."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).flip(1).numpy()


def _resized(pixels: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    if pixels.shape[1::-1] == size:
        return pixels
    if not _is_vectorized():
        return np.array(_as_image(pixels).resize(size, resampling))
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # channels last, which is the fast way
    resized = interpolate(batch, size[::-1], mode=_MODES[resampling], antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _as_image(pixels: Image.Image | np.ndarray) -> Image.Image:
    return pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)


class _Window(NamedTuple):
    """Along one side: the pixels from `first` to `last` are resampled to `length`, then the first `skipped` are cut."""

    first: int
    last: int
    length: int
    skipped: int

    def cut(self, size: int) -> slice:
        return slice(self.skipped, self.skipped + size)


def _window(start: float, end: float, side: int, size: int, cut: bool) -> _Window | None:
    """For the box from `start` to `end` of a `side`, to be resampled to `size`, in whole pixels, as PyTorch wants them.

    Either the box itself or the whole side; None where these have no whole pixels, or far too many.
    """
    if cut and start == int(start) and end == int(end):
        return _Window(int(start), int(end), size, 0)
    skipped, length = start * size / (end - start), side * size / (end - start)
    whole = abs(skipped - round(skipped)) < 1e-6 and abs(length - round(length)) < 1e-6
    most = size * (_WASTE if _is_vectorized() else 1.0)
    return _Window(0, side, round(length), round(skipped)) if whole and length <= most else None


@cache
def _is_vectorized() -> bool:
    """Otherwise Pillow is the faster."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")
