from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from botformer.plots.heat_tiles import (
    TILE_PX,
    around_box,
    cosine_scale,
    encoded,
    factor_scale,
    heat_tile,
    image_tile,
    matrix_tile,
    of_largest_scale,
    times_mean_scale,
    with_box,
    with_ring,
)


def grey(height, width, value=200):
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("size", [(48, 48), (30, 200), (200, 30), (1, 1), (1, 900), (2000, 1500)])
def test_tiles_of_any_size(size):
    height, width = size
    values = np.random.default_rng(0).random((-(-height // 16), -(-width // 16)))
    tile = heat_tile(grey(*size), values, 16, of_largest_scale(), (height / 2, width / 2))
    assert tile.dtype == np.uint8
    assert max(tile.shape[:2]) == TILE_PX
    assert tile.shape == image_tile(grey(*size)).shape
    assert abs(tile.shape[0] / tile.shape[1] - height / width) < 0.6 * height / width or min(tile.shape[:2]) < 3


def test_a_cell_is_bright_where_its_pixels_are():
    """The last cells reach beyond the image: 40 px are two and a half cells of 16."""
    image = grey(40, 64)
    for row in range(3):
        for column in range(4):
            values = np.zeros((3, 4))
            values[row, column] = 1
            bright = heat_tile(image, values, 16, of_largest_scale()).astype(int).sum(2)
            y, x = np.unravel_index(bright.argmax(), bright.shape)
            scale = TILE_PX / 64
            assert row * 16 <= (y + 0.5) / scale <= row * 16 + 16
            assert column * 16 <= (x + 0.5) / scale <= column * 16 + 16


def test_a_peak_in_one_of_many_cells_is_seen():
    values = np.zeros((700, 700))
    values[333, 444] = 1
    tile = heat_tile(grey(2800, 2800), values, 4, of_largest_scale()).astype(int)
    bright = tile[..., 0] - tile[..., 2]  # orange
    assert bright.max() > bright.min() + 10
    y, x = np.unravel_index(bright.argmax(), bright.shape)
    assert abs(y - 333.5 * 0.4) < 2
    assert abs(x - 444.5 * 0.4) < 2


def test_equal_values_have_equal_colours_in_all_tiles():
    """One scale for all, not one for each."""
    scale = times_mean_scale(16)
    one, other = (heat_tile(grey(8, 8), np.array([[value, 2.0]]), 4, scale) for value in (1.0, 16.0))
    np.testing.assert_array_equal(one[:, -1], other[:, -1])
    assert other[:, 0].astype(int).sum() > one[:, 0].astype(int).sum()


def test_attention_below_the_mean_is_dark_and_noise_does_not_glow():
    scale = times_mean_scale(1.1)
    assert scale.high == 4
    np.testing.assert_allclose(scale.fractions(np.array([0.0, 0.5, 1.0, 2.0, 4.0, 9.0])), [0, 0, 0, 0.5, 1, 1])
    assert [words for _, words in scale.ticks] == ["1×", "2×", "4×"]


@pytest.mark.parametrize(("largest", "end", "labels"), [(4.0, 4, 3), (4.1, 8, 4), (100, 128, 4), (5000, 8192, 5)])
def test_a_scale_reaches_the_largest_value(largest, end, labels):
    scale = times_mean_scale(largest)
    assert scale.high == end
    assert len(scale.ticks) == labels
    places = [place for place, _ in scale.tick_places()]
    assert places[0] == 0
    assert places == sorted(places)


def test_factors_are_symmetrical():
    scale = factor_scale(np.log(3))
    np.testing.assert_allclose(scale.fractions(np.log([1 / 4, 1.0, 4.0])), [0, 0.5, 1])
    assert [words for _, words in scale.ticks] == ["1/4", "1×", "4×"]
    assert factor_scale(0.0).ticks[-1][1] == "1.5×"
    assert np.isfinite(factor_scale(1e9).high)
    middle = scale.colours(np.array([[0.5]]))
    assert middle.min() > 240, "no effect is white"


def test_matrices_keep_their_values_apart():
    tile = matrix_tile(np.array([[1.0, -1.0], [0.0, 1.0]]), cosine_scale())
    assert tile.shape == (TILE_PX, TILE_PX, 3)
    corners = tile[0, 0], tile[0, -1], tile[-1, 0], tile[-1, -1]
    assert (corners[0] == corners[3]).all()
    assert len({tuple(corner) for corner in corners}) == 3
    np.testing.assert_array_equal(tile[0, : TILE_PX // 2], np.broadcast_to(tile[0, 0], (TILE_PX // 2, 3)))


def test_the_ring_and_the_box_are_where_they_are_said_to_be():
    black = np.zeros((TILE_PX, TILE_PX // 2, 3), np.uint8)
    ringed = with_ring(black, (100, 50), (30, 20)).astype(int).sum(2)
    ys, xs = np.nonzero(ringed > 100)
    scale = TILE_PX / 100
    np.testing.assert_allclose([(ys + 0.5).mean(), (xs + 0.5).mean()], [30 * scale, 20 * scale], atol=0.5)
    boxed = with_box(black, (100, 50), (10, 20, 30, 60)).astype(int).sum(2)
    ys, xs = np.nonzero(boxed)
    np.testing.assert_allclose([xs.min(), ys.min(), xs.max(), ys.max()], np.array([10, 20, 30, 60]) * scale, atol=2)
    for outside in ((-50, -50, -10, -10), (0, 0, 50, 100), (49.9, 99.9, 80, 300)):
        assert with_box(black, (100, 50), outside).shape == black.shape


def test_bars_show_their_scale():
    for scale in (times_mean_scale(9), of_largest_scale(), factor_scale(1.0), cosine_scale()):
        bar = scale.bar()
        assert bar.shape == (12, 256, 3)
        assert np.abs(bar[0, 0].astype(int) - bar[0, -1]).sum() > 60


def test_dark_micrographs_are_brightened():
    image = (np.random.default_rng(0).random((64, 64, 1)) * 25).astype(np.uint8).repeat(3, 2)
    assert image_tile(image).mean() > 2 * image.mean()


def test_files_are_jpeg_or_png():
    tile = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    with Image.open(BytesIO(encoded(tile))) as image:
        assert (image.format, image.size) == ("JPEG", (30, 20))
    with Image.open(BytesIO(encoded(tile, sharp=True))) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image), tile)


@pytest.mark.parametrize(
    "box", [(30, 20, 41, 33), (0, 0, 5, 5), (60, 35, 64, 40), (0, 0, 64, 40), (63.5, 39.5, 64, 40)]
)
@pytest.mark.parametrize("stride", [4, 16])
def test_the_part_around_a_box_keeps_every_cell_on_its_pixels(box, stride):
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    values = np.arange(-(-40 // stride) * -(-64 // stride)).reshape(-(-40 // stride), -1)
    part, cells, (left, top) = around_box(image, values, stride, box)
    np.testing.assert_array_equal(part, image[top : top + part.shape[0], left : left + part.shape[1]])
    assert cells.shape == (-(-part.shape[0] // stride), -(-part.shape[1] // stride))
    assert cells[0, 0] == values[top // stride, left // stride]
    margin = max(box[2] - box[0], box[3] - box[1])
    assert left <= max(box[0] - margin, 0)
    assert top <= max(box[1] - margin, 0)
    assert left + part.shape[1] >= min(box[2] + margin, 64)
    assert top + part.shape[0] >= min(box[3] + margin, 40)
