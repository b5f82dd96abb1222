import numpy as np
import pytest

from botformer.rle import encode
from botformer.serve.mask_outlines import outlines, simplified


def drawn(*windows, size=(40, 60)):
    mask = np.zeros(size, bool)
    for top, left, bottom, right in windows:
        mask[top:bottom, left:right] = True
    return mask


def test_a_rectangle_keeps_its_sides():
    """Where it touches the image's border, too. Its corners are cut by half a pixel."""
    for top, left, bottom, right in ((5, 7, 25, 40), (0, 0, 40, 60)):
        (polygon,) = outlines(encode(drawn((top, left, bottom, right))))
        assert len(polygon) <= 8
        points = np.array(polygon)
        assert (points.min(0).tolist(), points.max(0).tolist()) == ([left, top], [right, bottom])


def test_parts_have_outlines_of_their_own_and_holes_none():
    mask = drawn((2, 2, 20, 20), (5, 30, 15, 50))
    mask[8:12, 8:12] = False
    assert len(outlines(encode(mask))) == 2


@pytest.mark.parametrize("mask", [drawn(), drawn((3, 4, 4, 5)), drawn((3, 4, 4, 30)), np.ones((1, 1), bool)])
def test_what_is_hardly_anything(mask):
    found = outlines(encode(mask))
    assert len(found) == int(mask.any())
    assert all(len(polygon) >= 3 for polygon in found)


def test_no_point_is_further_from_the_rest_than_the_tolerance():
    turns = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    circle = np.stack([50 + 40 * np.cos(turns), 50 + 40 * np.sin(turns)], 1)
    few = simplified(circle, 0.5)
    assert 8 <= len(few) < 40
    ends = np.roll(few, -1, axis=0)
    along = ends - few
    for point in circle:
        place = np.clip(((point - few) * along).sum(1) / (along**2).sum(1), 0, 1)
        assert np.hypot(*(few + place[:, None] * along - point).T).min() <= 0.5 + 1e-9
