"""Against Pillow's own resampling of the fully decoded image."""

import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from botformer.data import image_io, resampling
from botformer.data.image_io import BadImage, decode, open_image
from botformer.data.resampling import Box, resample

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
ORIENTATION = 0x0112


def noise(width: int, height: int) -> Image.Image:
    """The worst that there is to resample."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@cache
def smooth(width: int, height: int) -> Image.Image:
    """Waves of 250 pixels, 1.6 levels per pixel: a shift is a difference, and decoding and filters are hardly any."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 40 + y / 90), np.cos(y / 40 - x / 90), np.sin((x + y) / 60)]
    return Image.fromarray((np.stack(waves, -1) * 100 + 128).astype(np.uint8))


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> io.BytesIO:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95, exif=exif, **options)
    stream.seek(0)
    return stream


@cache
def jpeg_bytes(width: int, height: int) -> bytes:
    return jpeg(smooth(width, height)).getvalue()


def difference(one: np.ndarray, other: Image.Image) -> np.ndarray:
    return one.astype(int) - np.asarray(other).astype(int)


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("filter_", [BILINEAR, BICUBIC])
@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((0, 0, 300, 200), (96, 64)),  # all of it
        ((0, 0, 300, 200), (450, 300)),
        ((50, 0, 250, 200), (64, 64)),  # a centre crop, whole new pixels before the box
        ((37.5, 25.0, 262.5, 175.0), (96, 64)),
        ((10, 20, 150, 90), (64, 64)),  # only whole pixels of the image
        ((10.3, 20.7, 150.1, 90.2), (64, 48)),  # neither
        ((250, 0, 251, 200), (40, 40)),  # one column
    ],
)
def test_a_box_is_resampled_as_pillow_does(monkeypatch, box: Box, size: tuple[int, int], filter_, vectorized: bool):
    monkeypatch.setattr(resampling, "_is_vectorized", lambda: vectorized)
    image = noise(300, 200)
    got = resample(image, box, size, filter_)
    assert got.shape == (size[1], size[0], 3)
    assert got.dtype == np.uint8
    # Rounded after each direction, in either order; whatever is off by a tenth of a pixel differs by 30 and more here.
    off = np.abs(difference(got, image.resize(size, filter_, box)))
    assert off.max() <= 4
    assert off.mean() < 0.3


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (224, 200)])
def test_what_is_cut_out_first_does_not_see_beyond_its_edge(monkeypatch, size: tuple[int, int], vectorized: bool):
    monkeypatch.setattr(resampling, "_is_vectorized", lambda: vectorized)
    image, box = noise(300, 200), (10, 20, 150, 90)
    got = resample(image, box, size, BICUBIC, cut=True)
    assert np.abs(difference(got, image.crop(box).resize(size, BICUBIC))).max() <= 2
    uncut = resample(image, box, size, BICUBIC)
    assert np.abs(uncut.astype(int) - got.astype(int))[[0, -1]].max() > 20


def test_a_box_of_the_right_size_is_copied():
    image = noise(60, 50)
    for cut in (True, False):
        assert not difference(resample(image, (7, 5, 47, 45), (40, 40), BICUBIC, cut), image.crop((7, 5, 47, 45))).any()


@pytest.mark.parametrize(("filter_", "cut"), [(BILINEAR, False), (BICUBIC, True)])
@pytest.mark.parametrize("width_height", [(1603, 1201), (1600, 1200)])
@pytest.mark.parametrize(("ratio", "factor"), [(1.9, 1), (2, 2), (3.9, 2), (4, 4), (7.9, 4), (8, 8), (9, 8)])
def test_a_reduced_image_shows_the_same_part(width_height, ratio: float, factor: int, filter_, cut: bool):
    """Half a reduced pixel off would be one to four pixels: a mean difference of 1.5 levels at 2, of 6 at 8."""
    image = smooth(*width_height)
    encoded = open_image(io.BytesIO(jpeg_bytes(*width_height)), "image")
    assert encoded.size == image.size
    box = (301, 203, 301 + round(100 * ratio), 203 + round(80 * ratio))
    used = []
    unobserved = encoded.decode
    encoded.decode = lambda shrink: used.append(unobserved(shrink)) or used[-1]
    got = resample(encoded, box, (100, 80), filter_, cut)
    assert used[0][1] == factor
    off = difference(got, image.crop(box).resize((100, 80), filter_))[2:-2, 2:-2]
    assert np.abs(off).mean() < 1
    assert np.abs(off.mean((0, 1))).max() < 0.3


def test_a_reduced_photograph_differs_as_one_filter_from_another():
    """The mean over boxes is 2 levels where an image is just twice as large as needed, and 2 between bilinear and
    bicubic."""
    spec = find_spec("skimage")  # importing it takes seconds
    if spec is None or spec.origin is None:
        pytest.skip("needs a photograph of scikit-image")
    image = Image.open(Path(spec.origin).parent / "data" / "coffee.png").convert("RGB")
    box, size = (0, 0, 600, 400), (300, 200)
    full = image.resize(size, BICUBIC, box)
    assert np.abs(difference(resample(open_image(jpeg(image), "image"), box, size, BICUBIC), full)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width_height", "reduced"), [((800, 640), True), ((803, 641), False)])
def test_a_turned_image_is_reduced_only_where_nothing_shifts(orientation: int, width_height, reduced: bool):
    stored = smooth(*width_height)
    stream = jpeg(stored, orientation)
    encoded = open_image(stream, "image")
    upright = ImageOps.exif_transpose(Image.open(stream)).convert("RGB")
    assert encoded.size == upright.size
    image, factor = encoded.decode(shrink=8.0)
    assert factor == (8 if reduced or orientation == 1 else 1)
    size = tuple(-(-side // factor) for side in upright.size)
    assert np.asarray(image).shape == (*size[::-1], 3)
    if reduced:
        assert np.abs(difference(np.asarray(image), upright.resize(size, Image.Resampling.BOX))).mean() < 1


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [True, False])
def test_every_kind_of_jpeg_is_reduced(mode: str, progressive: bool):
    stored = smooth(640, 480).convert(mode)
    full = decode(jpeg(stored, progressive=progressive), "image")
    image, factor = open_image(jpeg(stored, progressive=progressive), "image").decode(shrink=5.0)
    assert (factor, np.asarray(image).shape) == (4, (120, 160, 3))
    assert np.abs(difference(np.asarray(image), full.resize((160, 120), Image.Resampling.BOX))).mean() < 1


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_other_formats_come_as_they_are(format: str):
    stream = io.BytesIO()
    smooth(160, 120).save(stream, format)
    image, factor = open_image(stream, "image").decode(shrink=100.0)
    assert (factor, np.asarray(image).shape) == (1, (120, 160, 3))


def test_a_small_jpeg_never_vanishes():
    for width, height in ((1, 1), (3, 100), (9, 9)):
        image, factor = open_image(jpeg(noise(width, height)), "image").decode(shrink=1000.0)
        assert np.asarray(image).shape == (-(-height // factor), -(-width // factor), 3)
        assert factor <= min(width, height)


def test_a_file_that_is_cut_short_is_refused_however_small_it_is_decoded():
    whole = jpeg(noise(800, 600)).getvalue()
    for shrink in (1.0, 2.0, 8.0):
        with pytest.raises(BadImage, match=r"image\.jpg"):
            open_image(io.BytesIO(whole[: len(whole) // 2]), "image.jpg").decode(shrink)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_torchvision_decodes_the_same_bytes_as_pillow(options: dict):
    """So a checkpoint does not depend on which of the two is there."""
    if image_io._torchvision_decoder() is None:
        pytest.skip("this torchvision decodes no JPEG")
    for image in (noise(203, 101), smooth(320, 200)):
        stream = io.BytesIO()
        image.save(stream, "JPEG", **options)
        got, factor = open_image(stream, "image").decode()
        assert isinstance(got, np.ndarray)
        assert factor == 1
        np.testing.assert_array_equal(got, np.asarray(Image.open(stream)))


def test_without_torchvisions_decoder_pillow_decodes(monkeypatch):
    monkeypatch.setattr(image_io, "_torchvision_decoder", lambda: None)
    image = smooth(320, 200)
    got, factor = open_image(jpeg(image), "image").decode()
    assert isinstance(got, Image.Image)
    assert (factor, got.size) == (1, (320, 200))
