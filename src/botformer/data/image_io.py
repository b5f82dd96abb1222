"""A file's bytes -> an upright 8-bit RGB image, or `BadImage` with the reason.

Nothing here changes state of the process, so threads may decode side by side. Pillow's limit on the number of pixels is
process-wide, and so are the filters of Python's warnings. Images are therefore opened by Pillow's plugins, which do not
look at the limit, and the EXIF block, whose damage Pillow warns of, is read here. The warnings that are left (damaged
TIFF tags, invalid animations) go to the caller; the data loader's workers ignore them.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from botformer.errors import InputError
from botformer.read_file import open_file


class _JpegImageFile(JpegImageFile):
    """Opening a JPEG file looks for a resolution in its EXIF block, and warns where that is damaged."""

    def getexif(self) -> Image.Exif:
        return Image.Exif()


_PLUGINS: dict[str, tuple[Callable[[bytes], bool], type[ImageFile]]] = {
    "JPEG": (lambda start: start.startswith(b"\xff\xd8\xff"), _JpegImageFile),
    "PNG": (lambda start: start.startswith(b"\x89PNG\r\n\x1a\n"), PngImageFile),
    "WEBP": (lambda start: start.startswith(b"RIFF") and start[8:12] == b"WEBP", WebPImageFile),
    "BMP": (lambda start: start.startswith(b"BM"), BmpImageFile),
    "TIFF": (lambda start: start[:4] in (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"II+\0", b"MM\0+"), TiffImageFile),
    "GIF": (lambda start: start.startswith((b"GIF87a", b"GIF89a")), GifImageFile),
    "PPM": (lambda start: re.match(rb"P[0123456fy]", start) is not None, PpmImageFile),
}
"""Format -> how its files start, and Pillow's class."""

FORMATS = tuple(_PLUGINS)
"""What is opened, whatever a file is called. Not more: Pillow would hand a PostScript file to Ghostscript."""

_OTHERS = (
    (rb"\Z", "the file is empty; copy or download it again"),
    (rb"version https://git-lfs", "it is a pointer of Git LFS; `git lfs pull` brings the image"),
    (rb".{4}ftyp(hei|hev|mif1|msf1)", "it is HEIC, as phones take them, whatever it is called; convert it to JPEG"),
    (rb".{4}ftypavi", "it is AVIF, whatever it is called; convert it to JPEG or PNG"),
    (rb"(\0\0\0\x0cJXL |\xff\x0a)", "it is JPEG XL, whatever it is called; convert it to JPEG or PNG"),
    (rb"(\0\0\0\x0cjP  |\xff\x4f\xff\x51)", "it is JPEG 2000; convert it to JPEG or PNG"),
    (rb"\s*(<!doctype html|<html)", "it is a web page, as a download that failed leaves one; download it again"),
    (rb"\s*(<svg|<\?xml)", "it is XML, such as SVG; draw it as PNG"),
    (rb"%PDF", "it is PDF; save its pages as PNG"),
    (rb"PK\x03\x04", "it is a zip archive; unpack it"),
)
"""How files start that are called images, and what to do."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that makes the image upright."""


class BadImage(InputError):  # noqa: N818 - named after the image, not the error
    """The image `name` cannot be used, for `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # exceptions are pickled by these arguments
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class TooManyPixels(BadImage):
    """It says of itself that it has more than are allowed; nothing was decoded."""


class ImageHeader(NamedTuple):
    """What a file says of its image before any pixel is decoded."""

    format: str
    """One of `FORMATS`."""
    mode: str
    """Pillow's: L, RGB, CMYK, I;16, ..."""
    deep: bool
    """More than 8 bits per channel."""
    width: int
    """Of the upright image, as `decode` gives it."""
    height: int
    orientation: int
    """As in EXIF: 1 lies upright, any other is turned or mirrored in `decode`."""


class EncodedImage:
    """The image in an open file, of which the header was read: decoded once it is known how large it must be."""

    def __init__(self, image: ImageFile, name: str, jpeg: bytes = b"") -> None:
        self._image, self._name, self._jpeg = image, name, jpeg
        self._orientation = _orientation(image)
        self.size = (image.height, image.width) if self._orientation >= 5 else (image.width, image.height)
        """(width, height), upright."""

    @property
    def header(self) -> ImageHeader:
        image = self._image
        deep = image.mode.startswith(("I", "F")) or ";16" in str(image.tile)
        return ImageHeader(image.format or "", image.mode, deep, *self.size, self._orientation)

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]

    def decode(self, shrink: float = 1.0) -> tuple[Image.Image | np.ndarray, int]:
        """To be called once. The image, and how many times smaller it is than `size`: 1, or of JPEG 2, 4 or 8.

        Upright RGB, 8 bits per channel, as `decode` gives it: an image, or an array (height, width, 3), whichever is
        there first.

        `shrink`: it may be so many times smaller. The decoder then computes fewer pixels from each block's frequencies,
        in a fraction of the time. A side that cannot be divided is rounded up: its last pixel shows the rest.
        """
        factor = self._factor(shrink)
        pixels = self._by_torchvision() if factor == 1 else None
        return (self.by_pillow(shrink) if pixels is None else pixels), factor

    def by_pillow(self, shrink: float = 1.0) -> Image.Image:
        """The same as an image, instead of `decode`."""
        factor = self._factor(shrink)
        with failures_named(self._name):
            if factor > 1:
                self._image.draft(None, (self._image.width // factor, self._image.height // factor))
            self._image.load()
            upright = _UPRIGHT.get(self._orientation)
            rgb = _to_rgb(self._image, self._name)
            return rgb if upright is None else rgb.transpose(upright)

    def _by_torchvision(self) -> np.ndarray | None:
        """The same bytes, from the same library, in two thirds of the time: Pillow keeps four bytes per pixel.

        None where it is not the same, where it refuses the file (Pillow then says why), and where torchvision has no
        decoder any more: 0.29 announces its end.
        """
        decode_jpeg = _torchvision_decoder() if self._jpeg else None
        if decode_jpeg is None or self._image.mode != "RGB" or self._orientation in _UPRIGHT:
            return None
        try:
            return decode_jpeg(torch.frombuffer(bytearray(self._jpeg), dtype=torch.uint8)).permute(1, 2, 0).numpy()
        except RuntimeError:
            return None

    def _factor(self, shrink: float) -> int:
        if not isinstance(self._image, JpegImageFile):
            return 1
        width, height = self._image.size
        at_most = min(shrink, width, height)
        # A side's rest would come first in an image that is turned or mirrored, and shift all others.
        exact = self._orientation in _UPRIGHT
        return next((n for n in (8, 4, 2) if n <= at_most and not (exact and (width % n or height % n))), 1)


def open_image(stream: BinaryIO, name: str, max_megapixels: float = 100.0) -> EncodedImage:
    """Read the header of an image. Raises `BadImage` as `decode`, which reads the rest, too."""
    with failures_named(name):
        # Pillow reads a JPEG file in dozens of pieces and seeks in between, which empties Python's buffer: a tenth of
        # the time of a photograph. Other files may be large without being images that are accepted.
        stream.seek(0)
        start = stream.read(3)
        jpeg = start + stream.read() if _PLUGINS["JPEG"][0](start) else b""
        image = _open(io.BytesIO(jpeg) if jpeg else stream)
        return EncodedImage(_small_enough(image, name, max_megapixels), name, jpeg)


def decode(file: BinaryIO | Path, name: str, max_megapixels: float = 100.0) -> Image.Image:
    """Read an image as upright RGB, 8 bits per channel.

    Transparent images are composited on white. 16-bit greys are divided by 257, so that white stays white. 32-bit
    integers are read as 16-bit and floats as 0 to 1 where all their values fit; otherwise the image's own smallest
    value becomes black and its largest white. Of several frames the first one is read.

    Raises `BadImage`, under the given name, for what is not an image, is damaged, or has more than `max_megapixels`
    (10^6 pixels; judged by the header, before any pixel is decoded). WebP and GIF files and TIFF tiles have a second
    limit, Pillow's own: twice `PIL.Image.MAX_IMAGE_PIXELS`, 179 megapixels unless the caller raises it.
    """
    if isinstance(file, Path):
        with failures_named(name), open_file(file) as stream:
            return open_image(stream, name, max_megapixels).by_pillow()
    return open_image(file, name, max_megapixels).by_pillow()


def upright_rgb(image: Image.Image, name: str) -> Image.Image:
    """An image that Pillow opened, or that a program made, as `decode` would give it. Raises `BadImage`."""
    if not (image.width and image.height):
        raise BadImage(name, f"has {image.width}x{image.height} pixels")
    with failures_named(name):
        image.load()  # Pillow decodes a file where its pixels are first wanted, and there the damage shows
        upright = _UPRIGHT.get(_orientation(image))
        rgb = _to_rgb(image, name)
        return rgb if upright is None else rgb.transpose(upright)


def grey_to_8_bits(values: np.ndarray, name: str) -> Image.Image:
    """Grey integers (height, width) of more than 8 bits, as `decode` reads them from a file. Raises `BadImage`."""
    return _to_8_bits(values, 65535.0, name)


@cache
def _torchvision_decoder() -> Callable[[torch.Tensor], Any] | None:
    """The bytes of a JPEG file of three colours -> uint8 (3, height, width)."""
    try:
        from torchvision.io import decode_jpeg  # takes seconds, and other formats do not need it
    except ImportError:
        return None
    return decode_jpeg


def preloaded_for(name: str) -> list[str]:
    """What worker processes should have imported before they decode files of this name's ending."""
    return ["torchvision.io"] if name.lower().endswith((".jpg", ".jpeg")) else []


def read_header(file: BinaryIO, name: str, max_megapixels: float = 100.0) -> ImageHeader:
    """The header alone. Raises `BadImage` as `decode`, for what the header shows."""
    with failures_named(name):
        return EncodedImage(_small_enough(_open(file), name, max_megapixels), name).header


def decode_small(
    file: BinaryIO, name: str, side: int, max_megapixels: float = 100.0
) -> tuple[ImageHeader, Image.Image]:
    """The header, and the image as `decode` gives it but possibly smaller by 2, 4 or 8: both of its sides keep at least
    `side` pixels, if they have them. JPEG files alone become smaller; it saves most of their time. Every byte is read
    all the same, so what is damaged raises `BadImage` here, too."""
    image = open_image(file, name, max_megapixels)
    return image.header, image.by_pillow(shrink=min(image.size) / side)


def image_ending(start: bytes) -> str:
    """The usual ending of a file that starts like this; "" for what is not an image that can be read."""
    return next((f".{name.lower()}" for name, (starts_like, _) in _PLUGINS.items() if starts_like(start[:16])), "")


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of the image that `decode` would give, from the file's header alone. Raises `BadImage`."""
    with failures_named(path.name), open_file(path) as stream:
        return EncodedImage(_open(stream), path.name).size


@contextmanager
def failures_named(name: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a `BadImage`."""
    try:
        yield
    except BadImage:
        raise
    except UnidentifiedImageError as error:
        known = f": {error}" if str(error) else ""
        raise BadImage(name, f"not an image that can be read ({', '.join(FORMATS)}){known}") from None
    except OSError as error:
        raise BadImage(name, error.strerror or str(error)) from error
    except Image.DecompressionBombError as error:
        raise BadImage(name, f"{error} (PIL.Image.MAX_IMAGE_PIXELS)") from error
    except Exception as error:  # Pillow's decoders raise nearly anything when fed with garbage
        raise BadImage(name, f"damaged ({type(error).__name__}: {error})") from error


def _open(stream: BinaryIO) -> ImageFile:
    """As `Image.open(stream, formats=FORMATS)`, without the limit that is the whole process's."""
    stream.seek(0)
    start = stream.read(64)
    for name, (starts_like, plugin) in _PLUGINS.items():
        if starts_like(start[:16]):
            stream.seek(0)
            try:
                return plugin(stream)
            except (SyntaxError, IndexError, TypeError, struct.error):  # what `Image.open` takes for another format
                raise UnidentifiedImageError(f"it begins as {name}, but is damaged, or of a rare kind") from None
    found = next((what for pattern, what in _OTHERS if re.match(pattern, start, re.DOTALL | re.IGNORECASE)), "")
    raise UnidentifiedImageError(found)


def _small_enough(image: ImageFile, name: str, max_megapixels: float) -> ImageFile:
    if image.width * image.height > max_megapixels * 1e6:
        raise TooManyPixels(
            name,
            f"{image.width}x{image.height} pixels are more than {max_megapixels:g} megapixels (max_megapixels)",
        )
    return image


def _orientation(image: Image.Image) -> int:
    """1 to 8 of an image as it lies in memory, from its EXIF block or else from XMP; 1, upright, where neither says."""
    if isinstance(image, TiffImageFile):
        return 1  # Pillow rotates these itself
    if isinstance(image, PngImageFile) and "exif" not in image.info:
        image.load()  # the block may follow the pixels
    exif = image.info.get("exif")
    if exif is None and "Raw profile type exif" in image.info:  # of PNG files by ImageMagick: hexadecimal digits
        exif = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    try:
        orientation = _exif_orientation(exif or b"")
    except struct.error:  # the block is cut short, which does not make the pixels any worse
        orientation = None
    if orientation is None:
        xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or ""
        text = xmp.decode("latin-1") if isinstance(xmp, bytes) else xmp
        match = re.search(r'tiff:Orientation(?:="|>)([0-9])', text)
        orientation = int(match[1]) if match else 1
    return orientation if orientation in _UPRIGHT else 1  # nobody knows what another number would mean


def _exif_orientation(exif: bytes) -> int | None:
    """The entry of the first directory of a TIFF structure, after any number of b"Exif\\0\\0"."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return None
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    (entries,) = struct.unpack_from(f"{order}H", exif, directory)
    for entry in range(entries):
        at = directory + 2 + 12 * entry
        tag, kind = struct.unpack_from(f"{order}HH", exif, at)
        integer = {1: "B", 3: "H", 4: "I"}.get(kind)
        if tag == ExifTags.Base.Orientation and integer:
            return int(struct.unpack_from(order + integer, exif, at + 8)[0])
    return None


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _to_8_bits(np.asarray(image), 1.0 if image.mode == "F" else 65535.0, name).convert("RGB")
    if image.has_transparency_data:
        # The colour under transparent pixels is arbitrary, often black. Drawings, logos and screenshots are made for a
        # white background, which image viewers and browsers show too.
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: np.ndarray, white: float, name: str) -> Image.Image:
    """Grey values (height, width) -> mode L, scaled from 0 to `white`, or from their own range if they exceed it."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise BadImage(name, "holds values that are not finite")
    if low >= 0 and high <= white:
        low, high = 0.0, white
    exact = values.astype(np.float32 if values.dtype.itemsize == 2 else np.float64)
    return Image.fromarray(((exact - low) / ((high - low) or 1.0) * 255 + 0.5).astype(np.uint8))
