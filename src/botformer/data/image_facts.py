"""What every image file of a data set is: readable or not, its size and format, and hashes that find its copies."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from botformer.data.image_io import BadImage, ImageHeader, decode_small, read_header
from botformer.environment import cores
from botformer.errors import InputError

_HASHED_PX = 128
"""Least side of the decoded image that is hashed; the hashes themselves look at 32 x 32 pixels."""
_BLANK_STD = 2.0
"""Of the grey values 0 to 255: below it an image shows nothing, and its perceptual hash is noise."""


class Hashes(NamedTuple):
    """Of one image."""

    content: bytes
    """Of the file's bytes: equal files alone have the same."""
    perceptual: int
    """64 bits of the lowest frequencies (pHash): similar images differ in few."""
    gradient: int
    """64 bits: which of neighbouring pixels is brighter (dHash)."""
    blank: bool
    """Whether it shows next to nothing; its perceptual hashes then mean nothing."""


class ImageFacts(NamedTuple):
    """Of one file. Either `problem` says why it cannot be read, or `header` is there."""

    problem: str
    header: ImageHeader | None
    hashes: Hashes | None
    """None where only headers were read, and where the image cannot be read."""


def read_image_facts(
    open_image: Callable[[int], BinaryIO],
    names: Sequence[str],
    *,
    headers_only: bool = False,
    max_megapixels: float = 100.0,
    on_image: Callable[[], object] = lambda: None,
) -> list[ImageFacts]:
    """The facts of the images 0, 1, ... with these names, in their order; one thread per core reads them.

    `open_image` gives the file, which is closed here; its OSError counts as unreadable. `on_image` is called after
    every image. `headers_only` decodes nothing: no hashes, and damage behind the header goes unseen.

    Raises:
        InputError: imagehash is not installed, and there are hashes to make.
    """
    imagehash = None if headers_only else _imagehash()
    facts = []
    with ThreadPoolExecutor(cores()) as threads:
        read = partial(_facts, open_image, imagehash=imagehash, max_megapixels=max_megapixels)
        for fact in threads.map(read, range(len(names)), names):
            facts.append(fact)
            on_image()
    return facts


def _facts(
    open_image: Callable[[int], BinaryIO], index: int, name: str, imagehash: ModuleType | None, max_megapixels: float
) -> ImageFacts:
    try:
        with open_image(index) as file:
            if imagehash is None:
                return ImageFacts("", read_header(file, name, max_megapixels), None)
            content = file.read()
        header, image = decode_small(BytesIO(content), name, _HASHED_PX, max_megapixels)
    except BadImage as error:
        return ImageFacts(error.reason, None, None)
    except OSError as error:
        return ImageFacts(error.strerror or str(error), None, None)
    return ImageFacts("", header, _hashes(content, image, imagehash))


def _hashes(content: bytes, image: Image.Image, imagehash: ModuleType) -> Hashes:
    grey = image.convert("L")
    return Hashes(
        hashlib.blake2b(content, digest_size=16).digest(),
        _bits(imagehash.phash(grey).hash),
        _bits(imagehash.dhash(grey).hash),
        float(np.asarray(grey).std()) < _BLANK_STD,
    )


def _bits(hashed: np.ndarray) -> int:
    """bool (8, 8) -> 64 bits."""
    return int.from_bytes(np.packbits(hashed).tobytes(), "big")


def _imagehash() -> ModuleType:
    try:
        import imagehash
    except ImportError:
        raise InputError(
            "finding copies of images needs the package imagehash: pip install 'botformer[look]'; or add --fast, which "
            "reads headers only"
        ) from None
    return imagehash
