import numpy as np
import pytest
import torch

from botformer.backbone.mhsa import MHSA2d
from botformer.explain import position_maps
from botformer.explain.forward_pass import layers_of

from .tiny_networks import HALVED, NON_LOCAL, STRIDE_1, classifier, detector, image


def mean_logits(layer, cells):
    """By brute force: the position term of every pair of positions, averaged over all queries... of one offset it is
    q . r, so that the mean query's is the mean over all queries."""
    module, x = layer.module, layer.x
    q = module.qkv(x)[0, : x.shape[1]].unflatten(0, (module.heads, -1))[:, :, : cells[0], : cells[1]]
    return q.mean((2, 3)) * (1 if module.position == "blog" else q.shape[1] ** -0.5)


@torch.no_grad()
@pytest.mark.parametrize("position", ["relative", "position_only"])
@pytest.mark.parametrize("size", [(48, 48), (40, 24)])
def test_relative_maps_are_over_offsets(position, size):
    model, pixels = classifier(HALVED, image_size=size, position=position), image(*size)
    for found, layer in zip(position_maps(model, pixels), layers_of(model, pixels), strict=True):
        H, W = layer.x.shape[2:]
        assert found.is_relative
        assert found.built_cells == (H, W)
        query = mean_logits(layer, (H, W))
        for dy in range(-H + 1, H):
            for dx in range(-W + 1, W):
                r = layer.module.rel_height[dy + H - 1] + layer.module.rel_width[dx + W - 1]
                np.testing.assert_allclose(found.logits[:, dy + H - 1, dx + W - 1], (query @ r).numpy(), atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("position", ["absolute", "blog"])
def test_absolute_maps_are_over_positions(position):
    model, pixels = classifier(STRIDE_1, image_size=(40, 24), position=position), image(40, 24)
    for found, layer in zip(position_maps(model, pixels), layers_of(model, pixels), strict=True):
        query = mean_logits(layer, (5, 3))
        assert not found.is_relative
        assert found.logits.shape == (4, 5, 3)
        for y in range(5):
            for x in range(3):
                e = layer.module.abs_height[y] + layer.module.abs_width[x]
                per_head = e.view(4, -1) if position == "blog" else e.expand(4, -1)
                np.testing.assert_allclose(found.logits[:, y, x], (query * per_head).sum(1).numpy(), atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("position", ["relative", "absolute", "blog", "position_only"])
def test_any_size_of_image(position):
    model = classifier(HALVED, position=position)
    for size in ((1, 1), (7, 90), (64, 33)):
        for layer in position_maps(model, image(*size)):
            assert np.isfinite(layer.logits).all()
            for name, table in layer.tables.items():
                assert layer.similarity(name).shape == (len(table), len(table))


@torch.no_grad()
def test_a_detector_s_maps_are_of_the_image_without_its_padding():
    """Offsets that two positions of the image can have, of the tables that the whole canvas uses."""
    model, pixels = detector(), image(64, 21)
    (found,), (layer,) = position_maps(model, pixels), layers_of(model, pixels)
    assert layer.x.shape[2:] == (8, 8)
    np.testing.assert_array_equal(found.tables["rel_height"], layer.module.rel_height.numpy())
    np.testing.assert_array_equal(found.tables["rel_width"], layer.module.rel_width[5:10].numpy())
    query = mean_logits(layer, (8, 3))
    r = layer.module.rel_height[7] + layer.module.rel_width[9]
    np.testing.assert_allclose(found.logits[:, 7, 4], (query @ r).numpy(), atol=1e-12)


def test_norms_and_cosines():
    model = classifier(STRIDE_1)
    layer = next(module for module in model.modules() if isinstance(module, MHSA2d))
    with torch.no_grad():
        layer.rel_height.zero_()
        layer.rel_height[0, 0], layer.rel_height[1, 0], layer.rel_height[2, 1], layer.rel_height[3, 0] = 2, 3, 1, -1
    found = position_maps(model, image(48, 48))[0]
    np.testing.assert_allclose(found.norms("rel_height")[:5], [2, 3, 1, 1, 0])
    np.testing.assert_allclose(found.similarity("rel_height")[0, :5], [1, 1, 0, -1, 0])


def test_layers_of_content_alone_have_none():
    assert position_maps(classifier(position="none"), image(48, 48)) == []
    assert position_maps(classifier(NON_LOCAL), image(48, 48)) == []
