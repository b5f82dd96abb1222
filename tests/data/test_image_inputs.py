"""What arrays, tensors and images of Pillow's are taken for, compared with the same image read from a file."""

import io
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from botformer.data import image_inputs
from botformer.data.image_inputs import input_image
from botformer.data.image_io import BadImage, decode

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (9, 14, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (9, 14)).astype(np.uint8)
DEEP = RNG.integers(0, 65536, (9, 14)).astype(np.uint16)
OPACITY = np.dstack([COLOUR, GREY])


def read(source) -> np.ndarray:
    return np.asarray(input_image(source, 1, 100.0).decode())


def from_file(pixels: np.ndarray, **options) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return np.asarray(decode(file, "file"))


@pytest.fixture(autouse=True)
def _say_it_again():
    image_inputs._say.cache_clear()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (COLOUR, COLOUR),
        (COLOUR[::-1, ::2], COLOUR[::-1, ::2]),
        (GREY, from_file(GREY)),
        (GREY[..., None], from_file(GREY)),
        (DEEP, from_file(DEEP)),
        (DEEP[..., None], from_file(DEEP)),
        (DEEP.astype(np.int32), from_file(DEEP)),
        (Image.fromarray(DEEP.astype(np.int32)), from_file(DEEP)),
        (Image.fromarray((GREY / 255).astype(np.float32)), from_file(GREY)),
        (DEEP.astype(np.int32) - 700, None),
        (OPACITY, from_file(OPACITY)),
        (COLOUR / 255, COLOUR),
        ((GREY / 255).astype(np.float16), from_file(GREY)),
        (GREY > 100, from_file((GREY > 100).astype(np.uint8) * 255)),
        (np.dstack([DEEP] * 3), np.dstack([DEEP >> 8] * 3)),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1) / 255, COLOUR),
        ((torch.from_numpy(COLOUR).permute(2, 0, 1) / 255).bfloat16().requires_grad_(), None),
        (torch.from_numpy(GREY), from_file(GREY)),
        (torch.from_numpy(GREY)[None], from_file(GREY)),
        (torch.from_numpy(OPACITY).permute(2, 0, 1), from_file(OPACITY)),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(OPACITY), from_file(OPACITY)),
        (Image.fromarray(GREY), from_file(GREY)),
        (Image.fromarray(DEEP), from_file(DEEP)),
        (np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1, 3), np.uint8)),
    ],
)
def test_an_image_in_memory_is_what_its_file_would_be(source, expected, caplog):
    pixels = read(source)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    if expected is not None:
        np.testing.assert_array_equal(pixels, expected)
    assert not caplog.records


@pytest.mark.parametrize(
    ("source", "expected", "words"),
    [
        (COLOUR.transpose(2, 0, 1), COLOUR, "(channels, height, width) are read as such"),
        (GREY[None], from_file(GREY), "(channels, height, width) are read as such"),
        (torch.from_numpy(COLOUR), COLOUR, "(height, width, channels) are read as such"),
        (COLOUR.astype(np.int64), COLOUR, "int64 from 0 to 255 are read as bytes"),
        (COLOUR.astype(np.int16), COLOUR, "int16 from 0 to 255 are read as bytes"),
        (GREY.astype(np.int16), from_file(GREY), "int16 from 0 to 255 are read as bytes"),
        (COLOUR.astype(np.uint16), np.zeros_like(COLOUR), "uint16 from 0 to 255 is read as 16 bits, nearly black"),
        (Image.fromarray(GREY.astype(np.int32)), from_file(GREY), "int32 from 0 to 255 are read as bytes"),
    ],
)
def test_what_was_plainly_meant_is_read_and_said_once(source, expected, words, caplog):
    with caplog.at_level(logging.WARNING, "botformer.data"):
        for _ in range(3):
            np.testing.assert_array_equal(read(source), expected)
    assert [words in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (COLOUR.astype(np.float32), "holds floats from .* divide bytes by 255"),
        ((COLOUR / 255 - 0.45) / 0.22, "do not normalise"),
        (np.full((4, 4), np.nan), "holds floats from nan"),
        (COLOUR.astype(np.int32) - 500, "expected colours as uint8"),
        (np.zeros((5, 6, 7), np.uint8), r"has the shape \(5, 6, 7\)"),
        (np.zeros((0, 6, 3), np.uint8), "with pixels"),
        (np.zeros(9, np.uint8), r"has the shape \(9,\)"),
        (torch.zeros(2, 9, 9), r"has the shape \(2, 9, 9\)"),
        (np.zeros((4, 4), complex), "holds values of type complex128"),
        (np.array([["a", "b"]]), "holds values of type"),
        (Image.new("RGB", (0, 4)), "has 0x4 pixels"),
        (Image.fromarray(GREY.astype(np.float32)), "holds floats from .* divide bytes by 255"),
        (torch.zeros(3, 4, 4).to_sparse(), "damaged|cannot be read"),
        (torch.zeros(3, 4, 4, device="meta"), "cannot be read"),
        (io.StringIO("text"), "was opened as text"),
        ("", "is an empty path"),
        ([1, 2], "is of type list"),
        (b"", "not an image"),
        (b"GIF", "not an image"),
    ],
)
def test_what_cannot_be_meant_gets_a_message(source, words):
    with pytest.raises(BadImage, match=words):
        read(source)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_pillow_opened_is_upright_like_its_file(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.png"
    Image.fromarray(COLOUR).save(file, exif=exif)
    np.testing.assert_array_equal(read(Image.open(file)), read(file))


def test_images_of_pillows_that_fail_when_they_are_decoded(tmp_path):
    Image.fromarray(np.repeat(np.repeat(COLOUR, 20, 0), 20, 1)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    with pytest.raises(BadImage, match="truncated"):
        read(Image.open(io.BytesIO(data[: len(data) // 2])))
    closed = Image.open(io.BytesIO(data))
    closed.close()
    with pytest.raises(BadImage, match="closed"):
        read(closed)
    file = (tmp_path / "whole.jpg").open("rb")
    file.close()
    with pytest.raises(BadImage, match=r"whole\.jpg: cannot be read \(ValueError: .*closed"):
        read(file)


@pytest.mark.parametrize("source", [COLOUR.copy(), torch.from_numpy(COLOUR.copy()), bytearray(b"not an image")])
def test_memory_that_changes_is_copied(source):
    taken = input_image(source, 1, 100.0)
    source[:] = b"x" * 12 if isinstance(source, bytearray) else 0
    if isinstance(source, bytearray):
        assert taken.source == b"not an image"
    else:
        np.testing.assert_array_equal(np.asarray(taken.decode()), COLOUR)


def test_threads_share_an_image_that_is_not_decoded_yet(tmp_path):
    pixels = RNG.integers(0, 256, (500, 400, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            image = Image.open(tmp_path / "large.png")
            for found in threads.map(read, [image] * 8):
                np.testing.assert_array_equal(found, pixels)
