import math

import numpy as np
import pytest
import torch

from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError
from botformer.explain import attention_heads
from botformer.predict.detector import attention_of

from .tiny_networks import CONVOLUTIONS, HALVED, NON_LOCAL, POSITIONS, ROWS, classifier, detector, image


def inputs_of_attention(model, pixels):
    """What the attention layers of c5 are called with, block by block, without hooks."""
    x = model.maxpool(model.act(model.bn1(model.conv1(model.preprocess(pixels[None].double() / 255)))))
    for stage in (model.layer1, model.layer2, model.layer3):
        x = stage(x)
    inputs = []
    for block in model.layer4:
        inputs.append(block.act(block.bn1(block.conv1(x))))
        x = block(x)
    return inputs


def logits_by_loops(layer, x, query):
    """(content, position), each (heads, H, W), from the formulas alone; tables at their own size."""
    _, C, H, W = x.shape
    D, qy, qx = C // layer.heads, *query
    projected = torch.einsum("oc,chw->ohw", layer.qkv.weight[:, :, 0, 0], x[0])
    if layer.qkv.bias is not None:
        projected = projected + layer.qkv.bias[:, None, None]
    terms = np.zeros((2, layer.heads, H, W))
    for n in range(layer.heads):
        q = projected[n * D : (n + 1) * D]
        k = projected[C + n * D : C + (n + 1) * D]
        scale = 1 if layer.position == "blog" else 1 / math.sqrt(D)
        for y in range(H):
            for w in range(W):
                if layer.position != "position_only":
                    terms[0, n, y, w] = scale * float(q[:, qy, qx] @ k[:, y, w])
                if layer.position in ("relative", "position_only"):
                    r = layer.rel_height[y - qy + H - 1] + layer.rel_width[w - qx + W - 1]
                elif layer.position == "absolute":
                    r = layer.abs_height[y] + layer.abs_width[w]
                elif layer.position == "blog":  # the query's position, and the key's q
                    r = (layer.abs_height[qy] + layer.abs_width[qx])[n * D : (n + 1) * D]
                    terms[1, n, y, w] = float(r @ q[:, y, w])
                    continue
                else:
                    continue
                terms[1, n, y, w] = scale * float(q[:, qy, qx] @ r)
    return terms


def softmax(logits):
    weights = np.exp(logits - logits.max((1, 2), keepdims=True))
    return weights / weights.sum((1, 2), keepdims=True)


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("size", [(48, 48), (33, 79)])
def test_every_head_is_the_softmax_of_the_formula(position, size):
    model, pixels = classifier(image_size=size, position=position), image(*size)
    query = (0.7 * size[0], 0.1 * size[1])
    found = attention_heads(model, pixels.double() / 255, query)
    assert [layer.name for layer in found] == [f"layer4.{block}.conv2" for block in range(3)]
    for layer, x, block in zip(found, inputs_of_attention(model, pixels), model.layer4, strict=True):
        assert layer.query_cell == (int(query[0] // layer.stride_px), int(query[1] // layer.stride_px))
        content, place = logits_by_loops(block.conv2, x, layer.query_cell)
        np.testing.assert_allclose(layer.attention, softmax(content + place), atol=1e-12)
        np.testing.assert_allclose(layer.attention.sum((1, 2)), 1, atol=1e-12)
        assert layer.attention.max() * layer.attention[0].size > 1.2, "flat attention would prove nothing"
        if position == "position_only":
            assert layer.content is None
        else:
            np.testing.assert_allclose(layer.content_alone, softmax(content), atol=1e-12)
        if position == "none":
            assert layer.position is None
            assert (layer.position_fraction == 0).all()
        else:
            np.testing.assert_allclose(layer.position_alone, softmax(place), atol=1e-12)
            fractions = place.var((1, 2)) / (place.var((1, 2)) + content.var((1, 2)))
            np.testing.assert_allclose(layer.position_fraction, fractions, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("size", [(48, 48), (1, 1), (7, 64), (97, 35)])
def test_both_terms_are_those_of_the_layer_at_any_size(position, size):
    """The layer itself, which resizes its tables, gives the same attention."""
    model, pixels = classifier(position=position), image(*size).double() / 255
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, MHSA2d):
            module.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
    for layer in attention_heads(model, pixels, (size[0] / 3, size[1] / 2)):
        expected = model.get_submodule(layer.name).attention_from(inputs[layer.name], layer.query_cell)
        np.testing.assert_allclose(layer.attention, expected[0].numpy(), atol=1e-12)


@torch.no_grad()
def test_a_non_local_block_has_one_head_of_content_alone():
    model, pixels = classifier(NON_LOCAL), image(48, 48)
    block = model.layer3.inserted_non_local
    seen = []
    hook = block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    (layer,) = attention_heads(model, pixels, (20, 30))
    hook.remove()
    q, k, _ = block.qkv(seen[0])[0].chunk(3)
    logits = torch.einsum("c,chw->hw", q[:, layer.query_cell[0], layer.query_cell[1]], k)
    np.testing.assert_allclose(layer.attention[0], logits.flatten().softmax(0).view_as(logits).numpy(), atol=1e-12)
    assert layer.position is None
    assert layer.heads == 1


@pytest.mark.parametrize("row", ROWS)
def test_every_place_of_attention_in_a_network_is_found(row):
    model = classifier(ROWS[row])
    for layer in attention_heads(model, image(48, 48), (47.9, 0)):
        height, width = layer.attention.shape[1:]
        assert (height, width) == (-(-48 // layer.stride_px),) * 2
        assert layer.query_cell == (height - 1, 0)


@pytest.mark.parametrize("kind", ["mask_rcnn", "faster_rcnn", "keypoint_rcnn"])
@pytest.mark.parametrize("padding_mask", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (64, 23), (9, 50)])
def test_the_padding_of_a_detector_is_left_out(kind, padding_mask, size):
    """As `botformer predict --attention` shows it, which averages the heads and spreads them over the pixels."""
    model = detector(kind=kind, padding_mask=padding_mask).float()
    pixels = image(*size)
    (layer,) = attention_heads(model, pixels, (size[0] / 2, size[1] / 2))
    stride = layer.stride_px
    assert layer.attention.shape[1:] == (-(-size[0] // stride), -(-size[1] // stride))
    np.testing.assert_allclose(layer.attention.sum((1, 2)), 1, atol=1e-6)
    if max(size) == 64:  # a smaller image would be enlarged there
        from PIL import Image

        ((_, expected),) = attention_of(
            model, Image.fromarray(pixels.permute(1, 2, 0).numpy()), (0, 0, size[1], size[0])
        )
        mean = torch.from_numpy(layer.attention).mean(0)[None, None].float()
        spread = torch.nn.functional.interpolate(mean, scale_factor=stride, mode="bilinear")[0, 0, : size[0], : size[1]]
        np.testing.assert_allclose((spread / spread.sum()).numpy(), expected, atol=1e-6)


def test_a_network_without_attention_says_so():
    with pytest.raises(InputError, match="no attention layers.*grad_cam"):
        attention_heads(classifier(CONVOLUTIONS), image(48, 48), (0, 0))


@pytest.mark.parametrize("query", [(-0.1, 3), (3, 48.5), (math.nan, 3)])
def test_a_query_outside_the_image_is_refused(query):
    with pytest.raises(InputError, match="outside the image, which the network sees at 48x48 px"):
        attention_heads(classifier(HALVED), image(48, 48), query)


def test_an_image_larger_than_the_canvas_is_refused():
    with pytest.raises(InputError, match=r"80x40 px, larger than the detector's canvas of 64x64.*explain\.see"):
        attention_heads(detector(), image(40, 80), (1, 1))
