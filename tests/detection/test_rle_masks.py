"""Masks that are decoded when they are asked for."""

import numpy as np
import pytest

from botformer.detection.rle_masks import RLEMasks
from botformer.rle import encode


def masks(height, width):
    rng = np.random.default_rng(0)
    yield np.zeros((height, width), dtype=bool)
    yield np.ones((height, width), dtype=bool)
    yield from (rng.random((height, width)) < fraction for fraction in (0.01, 0.5))
    for corner in ((0, 0), (height - 3, width - 3), (height // 2, 0), (0, width // 2)):
        mask = np.zeros((height, width), dtype=bool)
        mask[corner[0] : corner[0] + 3, corner[1] : corner[1] + 3] = True
        yield mask


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [(30, 41), (64, 20)])
def test_each_is_the_mask_at_the_middle_of_every_block(size, factor):
    whole = list(masks(*size))
    height, width = (-(-side // factor) for side in size)
    drawn = RLEMasks([encode(mask) for mask in whole], (height, width), factor)
    assert len(drawn) == len(whole)
    rows, columns = (
        np.minimum(np.arange(side) * factor + factor // 2, longest - 1)
        for side, longest in zip((height, width), size, strict=True)
    )
    for mask, expected in zip(drawn, whole, strict=True):
        assert mask.dtype == bool
        assert np.array_equal(mask, expected[rows][:, columns])
