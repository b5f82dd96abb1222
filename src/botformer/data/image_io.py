"""A file's bytes -> an upright 8-bit RGB image, or `BadImage` with the reason."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from botformer.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is opened, whatever a file is called. Not more: Pillow would hand a PostScript file to Ghostscript."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what sets the image upright."""

_pillow_globals = threading.Lock()


class BadImage(InputError):  # noqa: N818 - it is the image that is bad
    """An image that cannot be used: `name` says which, `reason` why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # these very arguments: exceptions are pickled by them
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decode(file: BinaryIO | Path, name: str, max_megapixels: float = 100.0) -> Image.Image:
    """Read an image as upright RGB, 8 bits a channel.

    Transparent pixels are laid on white. 16-bit greys are divided by 257, so that white stays white. 32-bit integers
    are read as 16-bit and floats as 0 to 1 where all their values fit; otherwise the image's own smallest value
    becomes black and its largest white. Of several frames the first counts.

    Raises `BadImage`, under the given name, for what is not an image, is damaged, or has more than `max_megapixels`
    (10^6 pixels; judged by the header, before any pixel is decoded).
    """
    try:
        with _pillow_kept_quiet():
            if isinstance(file, Path):
                with file.open("rb") as stream:
                    return _decode(stream, name, max_megapixels)
            return _decode(file, name, max_megapixels)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage(name, f"not an image that can be read ({', '.join(FORMATS)})") from None
    except OSError as error:
        raise BadImage(name, error.strerror or str(error)) from error
    except Exception as error:  # Pillow's decoders raise nearly anything when fed with garbage
        raise BadImage(name, f"damaged ({type(error).__name__}: {error})") from error


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of the image that `decode` would give, from the file's header alone. Raises `BadImage`."""
    try:
        with _pillow_kept_quiet(), Image.open(path, formats=FORMATS) as image:
            lies = _orientation(image) >= 5
            return (image.height, image.width) if lies else (image.width, image.height)
    except UnidentifiedImageError:
        raise BadImage(path.name, f"not an image that can be read ({', '.join(FORMATS)})") from None
    except OSError as error:
        raise BadImage(path.name, error.strerror or str(error)) from error
    except Exception as error:  # Pillow's decoders raise nearly anything when fed with garbage
        raise BadImage(path.name, f"damaged ({type(error).__name__}: {error})") from error


def _decode(stream: BinaryIO, name: str, max_megapixels: float) -> Image.Image:
    image = Image.open(stream, formats=FORMATS)
    if image.width * image.height > max_megapixels * 1e6:
        raise BadImage(
            name,
            f"{image.width}x{image.height} pixels are more than {max_megapixels:g} megapixels (max_megapixels)",
        )
    image.load()
    upright = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image, name)
    return rgb if upright is None else rgb.transpose(upright)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF, which raises nearly anything, does not make the pixels any worse
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _to_8_bits(np.asarray(image), 1.0 if image.mode == "F" else 65535.0, name).convert("RGB")
    if image.has_transparency_data:
        # The colour below transparent pixels is arbitrary, often black. White is the paper that drawings, logos and
        # screenshots were made for, and what image viewers and browsers show.
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray, white: float, name: str) -> Image.Image:
    """Grey values (height, width) -> mode L; 0 to `white` if they lie in between, else their own range."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise BadImage(name, "holds values that are not finite")
    if low >= 0 and high <= white:
        low, high = 0.0, white
    exact = values.astype(np.float32 if values.dtype.itemsize == 2 else np.float64)
    return Image.fromarray(((exact - low) / ((high - low) or 1.0) * 255 + 0.5).astype(np.uint8))


@contextmanager
def _pillow_kept_quiet() -> Iterator[None]:
    """Our limit in place of Pillow's, and none of its warnings; both are global, hence the lock, and put back."""
    with _pillow_globals, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
