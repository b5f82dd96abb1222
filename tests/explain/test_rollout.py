import numpy as np
import pytest
import torch
from torch.nn import functional as F

from botformer.errors import InputError
from botformer.explain import rollout
from botformer.explain.forward_pass import layers_of

from .tiny_networks import CONVOLUTIONS, POSITIONS, ROWS, STRIDE_1, classifier, detector, image


def dense_attention(layer, cells):
    """(HW, HW), heads averaged, row by row from the whole layer; keys that are padding left out."""
    height, width = cells
    rows = []
    for y in range(height):
        for x in range(width):
            logits = sum(
                torch.einsum("nd,nuvd->nuv", q[0, :, y, x], k[0])
                for queries, keys in layer.module.logit_terms(layer.x).values()
                for q, k in zip(queries, keys, strict=True)
            )[:, :height, :width]
            rows.append(logits.flatten(1).softmax(1).mean(0))
    return torch.stack(rows)


def pooling(fine, coarse):
    """(coarse cells, fine cells): the average pool of 2x2 as a matrix."""
    columns = torch.eye(fine[0] * fine[1], dtype=torch.float64).view(-1, 1, *fine)
    pooled = columns
    while pooled.shape[2:] != tuple(coarse):
        pooled = F.avg_pool2d(pooled, 2, ceil_mode=True)
    return pooled.flatten(1).T


@torch.no_grad()
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("size", [(48, 48), (33, 71), (2, 9)])
def test_it_is_the_product_of_the_dense_matrices(row, size):
    model, pixels = classifier(ROWS[row]), image(*size)
    strides, c5 = [], model.strides["c5"]
    product, cells = None, tuple(-(-side // c5) for side in size)
    for layer in reversed(layers_of(model, pixels)):
        fine = tuple(-(-side // layer.stride_px) for side in size)
        A = dense_attention(layer, fine)
        step = (A + torch.eye(len(A), dtype=torch.float64)) / 2
        # What follows averages each 2x2 before it goes on, the attention's result and the shortcut alike.
        step = pooling(fine, cells) @ step
        product = step if product is None else product @ step
        cells = fine
        strides.append(layer.stride_px)
    found = rollout(model, pixels)
    assert found.stride_px == strides[-1]
    expected = product.mean(0).view(cells)
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-12)
    np.testing.assert_allclose(found.values.sum(), 1, atol=1e-12)
    query = (0.9 * size[0], 0.2 * size[1])
    place = int(query[0] // c5) * -(-size[1] // c5) + int(query[1] // c5)
    np.testing.assert_allclose(rollout(model, pixels, query).values, product[place].view(cells).numpy(), atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_kind(position):
    model, pixels = classifier(STRIDE_1, position=position), image(40, 24)
    product = torch.eye(15, dtype=torch.float64)
    for layer in layers_of(model, pixels):
        product = (dense_attention(layer, (5, 3)) + torch.eye(15, dtype=torch.float64)) / 2 @ product
    np.testing.assert_allclose(rollout(model, pixels).values, product.mean(0).view(5, 3).numpy(), atol=1e-12)


@pytest.mark.parametrize("padding_mask", [True, False])
def test_the_padding_of_a_detector_is_left_out(padding_mask):
    model, pixels = detector(padding_mask=padding_mask), image(64, 21)
    (layer,) = layers_of(model, pixels)
    A = dense_attention(layer, (8, 3))
    step = (A + torch.eye(24, dtype=torch.float64)) / 2
    found = rollout(model, pixels, (63, 20.9))
    np.testing.assert_allclose(found.values, step[-1].view(8, 3).detach().numpy(), atol=1e-12)


def test_memory_does_not_grow_with_the_square_of_the_map(monkeypatch):
    """Rows of the matrix are computed some at a time, with the same result."""
    model, pixels = classifier(), image(48, 48)
    whole = rollout(model, pixels).values
    monkeypatch.setattr("botformer.backbone.attention_maps._LOGITS_AT_ONCE", 200)
    np.testing.assert_allclose(rollout(model, pixels).values, whole, atol=1e-14)


def test_uniform_attention_leaves_everything_even():
    model = classifier()
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "qkv"):
                module.qkv.weight.zero_()
    # 48 px: 6 x 6 cells, then 3 x 3, which cover 2 x 2 each.
    np.testing.assert_allclose(rollout(model, image(48, 48)).values, 1 / 36, atol=1e-12)


def test_a_network_without_attention_says_so():
    with pytest.raises(InputError, match="no attention layers"):
        rollout(classifier(CONVOLUTIONS), image(48, 48))
