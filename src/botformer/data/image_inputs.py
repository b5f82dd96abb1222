"""What a program hands over as an image -> an upright RGB image, or an encoded one that is decoded as it is needed."""

import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from botformer.data.image_io import BadImage, EncodedImage, failures_named, grey_to_8_bits, open_image, upright_rgb
from botformer.read_file import at_home, open_file

log = logging.getLogger("botformer.data")

_CHANNELS = (1, 3, 4)
"""Grey, red green blue, and these with opacity."""
_ADDRESSES = ("http://", "https://", "ftp://", "s3://", "gs://", "file://", "data:")

_LOADING = tuple(Lock() for _ in range(61))
"""Pillow decodes an image where it is first looked at, which two threads must not do at once; by the image's id."""
_LONGEST = 80
"""Characters of an address that a message repeats."""


@dataclass(frozen=True)
class NamedBytes:
    """An image file that was read elsewhere, such as a member of a tar."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Damaged:
    """What should have held images and cannot be read: it becomes one unreadable image."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class InputImage:
    """An image as it was handed over; nothing is read before `open`."""

    source: Any = field(repr=False)
    name: str
    max_megapixels: float

    @contextmanager
    def open(self) -> Iterator[Image.Image | EncodedImage]:
        """The image for the transforms of an evaluation.

        Raises:
            BadImage: it cannot be read, or is no image.
        """
        source, name = self.source, self.name
        if isinstance(source, Damaged):
            raise BadImage(name, source.reason)
        if isinstance(source, (str, os.PathLike)):
            path = _checked_path(source, name)
            try:
                file = open_file(path)
            except (OSError, ValueError) as error:  # ValueError: a NUL character
                raise BadImage(name, getattr(error, "strerror", None) or str(error)) from error
            with file:
                yield open_image(file, name, self.max_megapixels)
        else:
            with failures_named(name):
                image = self._from_memory()
            yield image

    def _from_memory(self) -> Image.Image | EncodedImage:
        source, name = self.source, self.name
        if isinstance(source, NamedBytes):
            return open_image(io.BytesIO(source.data), name, self.max_megapixels)
        if isinstance(source, bytes):
            return open_image(io.BytesIO(source), name, self.max_megapixels)
        if isinstance(source, Image.Image):
            with _LOADING[id(source) % len(_LOADING)]:
                if source.format is None and source.mode in ("I", "F"):  # no file says what its numbers mean
                    return _of_array(np.asarray(source), name)
                return upright_rgb(source, name)
        if isinstance(source, Tensor):
            return _of_array(_channels_last_tensor(source, name), name)
        if isinstance(source, np.ndarray):
            return _of_array(_channels_last_array(source, name), name)
        raise BadImage(name, _not_an_image(source))

    def decode(self) -> Image.Image:
        """The whole image, to be drawn. Raises `BadImage` as `open`."""
        with self.open() as image:
            return image.by_pillow() if isinstance(image, EncodedImage) else image


def input_image(source: Any, number: int, max_megapixels: float) -> InputImage:
    """An image as a program gives it. `number` is its name where it has none.

    Memory that can change, as where a camera writes each frame into the same array, is copied.
    """
    if isinstance(source, (NamedBytes, Damaged)):
        return InputImage(source, source.name, max_megapixels)
    if isinstance(source, (str, os.PathLike)):
        is_address = str(source).lower().startswith(_ADDRESSES)
        name = str(source)[:_LONGEST] if is_address else Path(source).as_posix() if str(source) else "''"
        return InputImage(source, name, max_megapixels)
    name = f"image {number}"
    try:
        if hasattr(source, "read") and not isinstance(source, Image.Image):  # an open file, which is read once
            given = getattr(source, "name", None)
            name = given if isinstance(given, str) else name
            source = source.read()
            if isinstance(source, str):
                source = Damaged(name, "was opened as text; open it as bytes: open(FILE, 'rb')")
        elif isinstance(source, (bytearray, memoryview)):
            source = bytes(source)
        elif isinstance(source, Tensor):
            source = source.detach().to("cpu", copy=True)
        elif isinstance(source, (np.ndarray, np.generic)):
            source = np.array(source)
    except Exception as error:  # a closed file, a tensor without data, a disk that fails
        source = Damaged(name, f"cannot be read ({type(error).__name__}: {error})")
    return InputImage(source, name, max_megapixels)


def _checked_path(source: Any, name: str) -> Path:
    if str(source).lower().startswith(_ADDRESSES):
        raise BadImage(name, "is an address, and nothing is downloaded; give the file, or its bytes")
    if not str(source):
        raise BadImage(name, "is an empty path")
    path = at_home(source)
    if path.is_dir():
        raise BadImage(
            name, "is a folder; give its images: predictor.stream(sorted(Path(FOLDER).rglob('*.jpg'))), or the "
            "command botformer predict FOLDER"
        )  # fmt: skip
    return path


def _not_an_image(source: Any) -> str:
    expected = (
        "expected a path, the bytes of an image file, an image of Pillow's, an array (height, width, 3), or a tensor "
        "(3, height, width)"
    )
    if source is None:
        return f"is None, which cv2.imread gives for a file that it cannot read; {expected}"
    return f"is of type {type(source).__name__}; {expected}"


def _channels_last_array(values: np.ndarray, name: str) -> np.ndarray:
    """(height, width) or (height, width, 1, 3 or 4)."""
    if values.ndim == 3 and values.shape[2] not in _CHANNELS and values.shape[0] in _CHANNELS:
        _say("arrays (channels, height, width) are read as such; expected were (height, width, channels)")
        values = values.transpose(1, 2, 0)
    return _checked_shape(values, name, "(height, width) or (height, width, 1, 3 or 4)")


def _channels_last_tensor(tensor: Tensor, name: str) -> np.ndarray:
    values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if values.ndim == 3 and values.shape[0] in _CHANNELS:
        values = values.transpose(1, 2, 0)
    elif values.ndim == 3 and values.shape[2] in _CHANNELS:
        _say("tensors (height, width, channels) are read as such; expected were (channels, height, width)")
    return _checked_shape(values, name, "(height, width) or (1, 3 or 4, height, width)")


def _checked_shape(values: np.ndarray, name: str, expected: str) -> np.ndarray:
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in _CHANNELS) or not values.size:
        raise BadImage(name, f"has the shape {tuple(values.shape)}; expected {expected}, with pixels")
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values


def _of_array(values: np.ndarray, name: str) -> Image.Image:
    """(height, width) or (height, width, 3 or 4) of any type of numbers -> RGB."""
    pixels = _bytes_of(values, name)
    return upright_rgb(pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels), name)


def _bytes_of(values: np.ndarray, name: str) -> np.ndarray | Image.Image:
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        # Resampling and colour jitter overshoot a little; bytes and normalised images do by far. NaN fails both.
        if not (low >= -0.5 and high <= 1.5):
            raise BadImage(
                name, f"holds floats from {low:g} to {high:g}; expected 0 to 1: divide bytes by 255 or give them as "
                "uint8, and do not normalise"
            )  # fmt: skip
        return (values.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    if values.dtype.kind not in "iu":
        raise BadImage(name, f"holds values of type {values.dtype}; expected uint8, 16-bit grey, or floats from 0 to 1")
    low, high = int(values.min()), int(values.max())
    if values.dtype != np.uint16 and low >= 0 and high <= 255:
        _say(f"values of type {values.dtype} from 0 to 255 are read as bytes")
        return values.astype(np.uint8)
    if values.dtype == np.uint16 and high <= 255:
        _say("an array of uint16 from 0 to 255 is read as 16 bits, nearly black; if it holds bytes, give it as uint8")
    if values.ndim == 2:
        return grey_to_8_bits(values, name)
    if low < 0 or high > 65535:
        raise BadImage(name, f"holds {values.dtype} from {low} to {high}; expected colours as uint8, or as 16 bits")
    return (values >> 8).astype(np.uint8)  # as Pillow reads files of 16 bits per colour


@cache
def _say(message: str) -> None:
    """Once: there may be a million."""
    log.warning(message)
