"""A sweep over map sizes, because sizes differ in their last tile. `every_map` runs all of them."""

import pytest
import torch

from botformer import create_model
from botformer.attention import tiled
from tests.attention.every_map import wrong_on_map

# With the real tiles: last tiles of one query, or of one cell of four pooled ones (50x50: BoTNet-50 at 800 px).
LAST_TILE_OF_ONE = [(50, 50), (46, 94), (58, 88), (43, 67)]


@pytest.mark.parametrize("tile", ["real tiles", "tiles of four queries", "tiles of eight queries"])
def test_every_small_map_agrees_with_the_definition(tile, monkeypatch):
    if tile != "real tiles":
        monkeypatch.setattr(tiled, "TILE_LOGITS", 1)
        monkeypatch.setattr(tiled, "MIN_QUERIES", 4 if "four" in tile else 8)
    most = 150 if tile == "real tiles" else 64
    sizes = [(H, W) for H in range(1, 101) for W in range(1, 101) if most >= H * W]
    assert not [problem for H, W in sizes for problem in wrong_on_map(H, W)]


@pytest.mark.parametrize("size", LAST_TILE_OF_ONE, ids=str)
def test_a_last_tile_of_one_query_agrees_with_the_definition(size):
    assert not wrong_on_map(*size)


def test_botnet50_trains_at_800_px():
    model = create_model("botnet50", 2, 800)
    model(torch.randn(1, 3, 800, 800)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
