import numpy as np
import pytest
import torch
from PIL import Image

from botformer.data.image_inputs import input_image
from botformer.errors import InputError
from botformer.explain import see
from botformer.explain.seen_image import seen_as
from botformer.predict.classifier import ClassifierNetwork
from botformer.predict.detector import DetectorNetwork

from .tiny_networks import classifier, detector

CROP = {"task": "classification", "images": {"size": 48, "evaluation_crop": 0.875, "max_megapixels": 100.0}}
LETTERBOX = {"task": "classification", "images": {"size": 48, "fit": "letterbox", "max_megapixels": 100.0}}
DETECTION = {"task": "detection", "images": {"size": 64, "max_megapixels": 100.0}}
CONFIGS = {"crop": CROP, "letterbox": LETTERBOX, "detection": DETECTION}


def spot(height, width, y, x, side):
    """Black, with a white square around (y, x)."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[max(y - side, 0) : y + side + 1, max(x - side, 0) : x + side + 1] = 255
    return pixels


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("size", [(48, 48), (100, 63), (61, 200), (20, 31), (300, 301)])
def test_a_place_of_the_image_is_found_where_the_network_sees_it(config, size, tmp_path):
    height, width = size
    y, x = int(0.55 * height), int(0.42 * width)
    side = max(2, min(size) // 12)
    Image.fromarray(spot(height, width, y, x, side)).save(tmp_path / "spot.png")
    seen = see(CONFIGS[config], tmp_path / "spot.png")
    assert seen.image_px == size
    bright = seen.image.astype(float).sum(2)
    bright = np.where(bright > 450, bright, 0)  # the margin of a letterbox is grey
    weights = bright / bright.sum()
    middle = [float((weights.sum(1 - axis) * (np.arange(weights.shape[axis]) + 0.5)).sum()) for axis in (0, 1)]
    np.testing.assert_allclose(seen.pixel(y, x), middle, atol=0.8)
    np.testing.assert_allclose(seen.in_image(*seen.pixel(y, x)), (y + 0.5, x + 0.5), atol=1e-9)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_pixels_are_those_of_a_prediction(config, tmp_path):
    """In every kind of file that is read."""
    grey16 = (np.arange(70 * 90).reshape(70, 90) * 10).astype(np.uint16)
    rgb = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey16).save(tmp_path / "tief 16 bit.png")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grau äöü.tif")
    Image.fromarray(rgb).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(tmp_path / "alpha.png")
    for file in tmp_path.iterdir():
        seen = see(CONFIGS[config], file)
        assert seen.image.shape == (*seen.pixels.shape[1:], 3)
        if file.name == "turned.jpg":
            assert seen.image_px == (70, 90)
        image = input_image(file, 1, 100.0)
        size_px = seen.image_px[::-1]
        if config != "detection":
            names = {"class_names": ["a", "b", "c"]}
            expected = ClassifierNetwork(classifier().float(), CONFIGS[config] | names).prepare(image).pixels
            assert torch.equal(seen.pixels, expected)
            again = seen_as(CONFIGS[config], size_px, expected)
        else:
            names = {"categories": [[1, "a"], [2, "b"]]}
            prepared = DetectorNetwork(detector().float(), CONFIGS[config] | names).prepare(image)
            height, width = prepared.extent
            assert torch.equal(seen.pixels, prepared.canvas[:, :height, :width])
            again = seen_as(CONFIGS[config], size_px, prepared.canvas)
        assert torch.equal(again.pixels, seen.pixels)
        assert (again.image_px, again.box_xyxy) == (seen.image_px, seen.box_xyxy)


def test_an_image_of_a_program():
    seen = see(CROP, Image.new("L", (60, 50), 128))
    assert seen.pixels.shape == (3, 48, 48)
    assert seen.pixels.float().mean() == 128


@pytest.mark.parametrize(
    ("y", "x", "words"),
    [
        (-1, 5, "outside the image, which is 200x100 px: y from 0 to 99, x from 0 to 199"),
        (100, 5, "outside"),
        (5, 200, "outside"),
        (50, 3, "border that the network does not see; it sees y from"),
    ],
)
def test_a_pixel_that_cannot_be_shown(y, x, words):
    with pytest.raises(InputError, match=words):
        see(CROP, Image.new("RGB", (200, 100))).pixel(y, x)


def test_the_corners_of_what_is_seen():
    seen = see(DETECTION, Image.new("RGB", (200, 100)))
    assert seen.pixels.shape == (3, 32, 64)
    np.testing.assert_allclose(seen.pixel(0, 0), (0.16, 0.16))
    np.testing.assert_allclose(seen.pixel(99, 199), (31.84, 63.84))


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(InputError, match=r"notes\.png: not an image that can be read \(JPEG"):
        see(CROP, tmp_path / "notes.png")
    with pytest.raises(InputError, match=r"nothing\.png: No such file"):
        see(CROP, tmp_path / "nothing.png")
    with pytest.raises(InputError, match="is a folder; give its images"):
        see(CROP, tmp_path)
    Image.new("RGB", (2000, 1000)).save(tmp_path / "large.png")
    small = CROP | {"images": CROP["images"] | {"max_megapixels": 1.0}}
    with pytest.raises(InputError, match="2000x1000 pixels are more than 1 megapixels"):
        see(small, str(tmp_path / "large.png"))
