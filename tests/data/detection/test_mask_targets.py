import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from botformer.data.detection.mask_targets import area_px, crop_mask, shape_box
from botformer.rle import decode_counts as run_lengths
from tests.data.detection.coco_files import compressed, disc, uncompressed

SIDE = 40
masks = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((23, 31)) > 0.6)


def covered_by_counting(mask: np.ndarray, box: tuple[float, ...], size: int) -> np.ndarray:
    """Share of each cell that the mask covers, from a thousand points a cell instead of areas."""
    x1, y1, x2, y2 = box
    points = (np.arange(size * 32) + 0.5) / (size * 32)
    rows, columns = (y1 + (y2 - y1) * points).astype(int), (x1 + (x2 - x1) * points).astype(int)
    return mask[np.ix_(rows, columns)].reshape(size, 32, size, 32).mean((1, 3))


@given(mask=masks)
@settings(max_examples=40, deadline=None)
def test_both_kinds_of_run_lengths_are_read_as_pycocotools_reads_them(mask: np.ndarray) -> None:
    expected = uncompressed(mask)["counts"]
    assert run_lengths(compressed(mask)["counts"]).tolist() == expected
    assert run_lengths(expected).tolist() == expected
    assert area_px(compressed(mask), *mask.shape[::-1]) == area_px(uncompressed(mask), *mask.shape[::-1]) == mask.sum()
    if mask.any():
        x, y, w, h = coco_mask.toBbox(compressed(mask)).tolist()
        assert shape_box(compressed(mask)) == shape_box(uncompressed(mask)) == (x, y, x + w, y + h)


def test_long_runs_are_read_as_pycocotools_reads_them() -> None:
    mask = np.zeros((1500, 2000), dtype=bool)
    mask[700:, 3:1990] = True
    mask[5, 1000] = True
    runs = run_lengths(compressed(mask)["counts"])
    laid_out = np.repeat(np.arange(len(runs)) % 2, runs).reshape(2000, 1500).T
    assert np.array_equal(laid_out, mask)


@pytest.mark.parametrize("text", ["abc\x01", "0ü", "PPPP", "`" * 30 + "0"])
def test_text_that_is_no_run_lengths_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="characters|ascii|middle|too large"):
        run_lengths(text)


@pytest.mark.parametrize("form", [compressed, uncompressed])
@pytest.mark.parametrize("box", [(4.0, 5.0, 44.0, 45.0), (0, 0, 60, 50), (10.3, 7.75, 31.6, 29.1), (57.2, 3.0, 60, 5)])
@pytest.mark.parametrize("size", [8, 40, 112])
def test_a_cell_of_run_lengths_is_set_where_half_of_it_is_covered(form, box, size) -> None:
    mask = disc(50, 60, 24, 25, 17) ^ disc(50, 60, 20, 20, 4) | disc(50, 60, 60, 4, 2.5)
    share = covered_by_counting(mask, box, size)
    crop = crop_mask(form(mask), box, size)
    clear = np.abs(share - 0.5) > 0.03  # the rest is too close for counting points
    assert clear.mean() > 0.85
    assert np.array_equal(crop[clear] == 1, share[clear] > 0.5)


def test_a_crop_of_as_many_cells_as_pixels_is_the_image_itself() -> None:
    mask = np.random.default_rng(0).random((70, 90)) > 0.5
    crop = crop_mask(compressed(mask), (30.0, 11.0, 70.0, 51.0), SIDE)
    assert np.array_equal(crop, mask[11:51, 30:70])


def point_in_polygon(x: float, y: float, points: list[tuple[float, float]]) -> bool:
    """Even-odd, by the book: how many sides does a ray to the right cross?"""
    inside = False
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside


@pytest.mark.parametrize("seed", range(4))
def test_polygons_are_sampled_at_the_middles_of_the_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    polygons = [(rng.random(2 * corners) * 50).tolist() for corners in (3, 9)]  # the second one crosses itself
    box, size = (3.3, -4.0, 41.7, 52.5), 20
    expected = np.zeros((size, size), dtype=np.uint8)
    for row in range(size):
        for column in range(size):
            x = box[0] + (column + 0.5) / size * (box[2] - box[0])
            y = box[1] + (row + 0.5) / size * (box[3] - box[1])
            expected[row, column] = any(
                point_in_polygon(x, y, list(zip(p[::2], p[1::2], strict=True))) for p in polygons
            )
    assert 0 < expected.mean() < 1
    assert np.array_equal(crop_mask(polygons, box, size), expected)


def test_polygons_and_pycocotools_pixels_agree() -> None:
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius = 60 + 15 * np.sin(5 * angles)
    polygon = np.stack([100 + radius * np.cos(angles), 90 + radius * np.sin(angles)], 1).reshape(-1).tolist()
    runs = coco_mask.merge(coco_mask.frPyObjects([polygon], 200, 220))
    box = (25.0, 20.0, 175.0, 160.0)
    ours = crop_mask([polygon], box, 112) == 1
    peer = crop_mask({"size": [200, 220], "counts": runs["counts"].decode()}, box, 112) == 1
    assert (ours & peer).sum() / (ours | peer).sum() > 0.98
    assert area_px([polygon], 220, 200) == pytest.approx(coco_mask.area(runs), rel=0.02)


def test_area_of_polygons() -> None:
    assert area_px([[0, 0, 4, 0, 4, 3], [10, 10, 10, 12, 12, 12, 12, 10]], 40, 30) == 6 + 4


def test_a_thousand_instances_of_a_large_image_are_cheap() -> None:
    mask = disc(1024, 1024, 500, 500, 14)
    runs, box = compressed(mask), (486.0, 486.0, 514.0, 514.0)
    start = time.process_time()
    for _ in range(1000):
        crop_mask(runs, box, 112)
    assert time.process_time() - start < 2  # a tenth of a second here; laid out over the image, several
