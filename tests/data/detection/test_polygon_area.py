import time

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from botformer.data.detection.polygon_area import union_area_px

SQUARE = [10.0, 10, 30, 10, 30, 30, 10, 30]
TURNED = [10.0, 10, 10, 30, 30, 30, 30, 10]


@pytest.mark.parametrize(
    ("polygons", "area"),
    [
        ([SQUARE], 400),
        ([TURNED], 400),
        ([SQUARE, SQUARE], 400),
        ([SQUARE, TURNED], 400),
        ([SQUARE, [20.0, 20, 40, 20, 40, 25, 20, 25]], 450),
        ([SQUARE, [-5.0, 0, 5, 0, 5, 8, -5, 8]], 440),
        ([[0.0, 0, 20, 20, 20, 0, 0, 20]], 200),  # a bow tie: its halves turn opposite ways
        ([[-100.0, -100, 200, -100, 200, 200, -100, 200]], 100 * 80),
        ([[90.0, 70, 110, 70, 110, 90, 90, 90]], 100),
        ([[200.0, 10, 220, 10, 220, 30]], 0),
        ([[5.0, 5, 9, 9, 7, 7]], 0),
        ([[1.0, 1, 1, 1, 1, 1]], 0),
        # A ring around a hole, drawn as one line that crosses nothing: 20 x 20 without 10 x 10.
        ([[0.0, 0, 20, 0, 20, 20, 0, 20, 0, 0, 5, 5, 5, 15, 15, 15, 15, 5, 5, 5]], 300),
    ],
)
def test_areas_worked_out_by_hand(polygons, area):
    assert union_area_px(polygons, 100, 80) == pytest.approx(area, abs=1e-9)


def filled(polygons, width, height, finer):
    """Even-odd at the middles of cells of 1 / finer pixels, one point after the other."""
    ys, xs = ((np.arange(side * finer) + 0.5) / finer for side in (height, width))
    inside = np.zeros((len(ys), len(xs)), dtype=bool)
    for polygon in polygons:
        points = np.asarray(polygon).reshape(-1, 2)
        one = np.zeros_like(inside)
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0), strict=True):
            rows = (y1 <= ys) != (y2 <= ys)
            if rows.any():
                crossing = x1 + (ys[rows] - y1) / (y2 - y1) * (x2 - x1)
                one[rows] ^= xs > crossing[:, None]
        inside |= one
    return inside.sum() / finer**2


@pytest.mark.parametrize("seed", range(8))
def test_polygons_that_cross_themselves_and_each_other_and_the_border(seed):
    rng = np.random.default_rng(seed)
    polygons = [(rng.random(2 * rng.integers(3, 9)) * 70 - 10).tolist() for _ in range(rng.integers(1, 5))]
    assert union_area_px(polygons, 50, 40) == pytest.approx(filled(polygons, 50, 40, 24), abs=2.0)


@pytest.mark.parametrize("seed", range(4))
def test_smooth_shapes_have_the_area_of_pycocotools_mask(seed):
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    polygons = []
    for x, y in rng.random((2, 2)) * 60 + 60:
        radius = 50 + 8 * np.sin(3 * angles + x)
        polygons.append(np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1).reshape(-1).tolist())
    pixels = coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons, 150, 180)))
    assert union_area_px(polygons, 180, 150) == pytest.approx(pixels, rel=0.01)


def test_a_contour_of_ten_thousand_corners_is_cheap():
    angles = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    circle = np.stack([1e5 + 1000 * np.cos(angles), 1e5 + 1000 * np.sin(angles)], 1).reshape(-1).tolist()
    started = time.perf_counter()
    assert union_area_px([circle], 10**6, 10**6) == pytest.approx(np.pi * 1e6, rel=1e-6)
    assert time.perf_counter() - started < 5
