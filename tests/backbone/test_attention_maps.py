import numpy as np
import pytest
import torch

from botformer.backbone.attention_maps import (
    attention_layers,
    attention_maps,
    attention_modules,
    logits_of_query,
    pass_back,
)
from botformer.backbone.blocks import NonLocal
from botformer.create import create_backbone, create_model
from botformer.errors import InputError


def network(**options):
    torch.manual_seed(0)
    return create_model("botnet_nano", 3, 48, **options).double().eval()


@pytest.mark.parametrize("position", ["relative", "absolute", "none", "position_only", "blog"])
def test_the_weights_of_a_query_are_the_softmax_of_its_logits(position):
    model, images = network(position=position), torch.rand(2, 3, 40, 72, dtype=torch.float64)
    (layer,) = attention_layers(model, lambda: model(images))
    ((name, weights),) = attention_maps(model, images, (0.99, 0.5))
    logits = logits_of_query(layer, (4, 4)).total()
    assert name == layer.name == "layer4.0.conv2"
    assert layer.stride_px == 8
    assert weights.shape == (2, 4, 5, 9)
    np.testing.assert_allclose(weights, logits.flatten(2).softmax(2).view_as(weights), atol=1e-14)


@pytest.mark.parametrize("cells", [(5, 9), (5, 4), (1, 1)])
@pytest.mark.parametrize("rows", [1, 7, 10**6])
def test_weights_are_passed_back_as_the_whole_matrix_would(cells, rows, monkeypatch):
    model, images = network(), torch.rand(1, 3, 40, 72, dtype=torch.float64)
    (layer,) = attention_layers(model, lambda: model(images))
    monkeypatch.setattr("botformer.backbone.attention_maps._LOGITS_AT_ONCE", rows * 4 * cells[0] * cells[1])
    weights = torch.rand(cells, dtype=torch.float64)
    expected = torch.zeros(cells, dtype=torch.float64)
    for y in range(cells[0]):
        for x in range(cells[1]):
            logits = logits_of_query(layer, (y, x)).total()[0, :, : cells[0], : cells[1]]
            expected += weights[y, x] * logits.flatten(1).softmax(1).mean(0).view(cells)
    found = pass_back(layer, weights, cells)
    np.testing.assert_allclose(found, expected.detach(), atol=1e-12)
    np.testing.assert_allclose(found.sum(), weights.sum(), atol=1e-12)


def test_layers_come_in_the_order_they_run_with_their_strides():
    backbone = create_backbone("resnet50_bot_c4c5", 64).eval()
    layers = attention_layers(backbone, lambda: backbone(torch.rand(1, 3, 64, 64)))
    assert [(layer.name, layer.stride_px) for layer in layers] == [
        ("layer3.inserted_attention.conv2", 16),
        ("layer4.inserted_attention.conv2", 32),
    ]


@pytest.mark.parametrize("row", ["botnet50", "resnet50_bot_c4c5", "resnet50_nl", "resnet50"])
def test_layers_are_known_before_any_image(row):
    backbone = create_backbone(row, 64).eval()
    layers = attention_layers(backbone, lambda: backbone(torch.rand(1, 3, 64, 64)))
    known = attention_modules(backbone)
    assert [(each.name, each.module, each.stride_px) for each in known] == [
        (layer.name, layer.module, layer.stride_px) for layer in layers
    ]
    for each, layer in zip(known, layers, strict=True):
        content = logits_of_query(layer, (0, 0)).content
        assert content is not None
        assert each.heads == content.shape[1]


def test_non_local_blocks_are_layers_too():
    backbone = create_backbone("resnet50_nl", 64).eval()
    (layer,) = attention_layers(backbone, lambda: backbone(torch.rand(1, 3, 64, 64)))
    assert isinstance(layer.module, NonLocal)
    assert layer.stride_px == 16
    assert attention_maps(backbone, torch.rand(1, 3, 64, 64), (0.5, 0.5)) == []


@pytest.mark.parametrize("query", [(-0.3, 0.5), (0.5, 1.1)])
def test_a_query_outside_the_image_is_refused(query):
    model = create_backbone("botnet_nano", image_size=64).eval()
    with pytest.raises(InputError, match="query must be two fractions of the image between 0 and 1"):
        attention_maps(model, torch.zeros(1, 3, 64, 64), query)
