import logging

import pytest
import torch
from torch import nn

from botformer.attention import relative_attention_2d
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError

KINDS = ["relative", "absolute", "none", "position_only", "blog"]


def in_float64(layer):
    return layer.double().eval()


def dense_attention_weights(layer, x):
    """(B, N, HW, HW) built cell by cell from the description of each position kind, with no code of the layer."""
    B, C, H, W = x.shape
    N, D = layer.heads, C // layer.heads
    projected = layer.qkv(x).reshape(B, -1, N, D, H, W)
    q = projected[:, 0]
    k = projected[:, 1] if layer.position != "position_only" else torch.zeros_like(q)
    logits = torch.zeros(B, N, H, W, H, W, dtype=x.dtype)
    for y, x_, u, w in ((y, x_, u, w) for y in range(H) for x_ in range(W) for u in range(H) for w in range(W)):
        query, key = q[:, :, :, y, x_], k[:, :, :, u, w]
        if layer.position in ("relative", "position_only"):
            key = key + layer.rel_height[u - y + H - 1] + layer.rel_width[w - x_ + W - 1]
        if layer.position == "absolute":
            key = key + layer.abs_height[u] + layer.abs_width[w]
        if layer.position == "blog":
            r = (layer.abs_height[y] + layer.abs_width[x_]).reshape(N, D)
            logits[:, :, y, x_, u, w] = (query * key).sum(-1) + (r * q[:, :, :, u, w]).sum(-1)
        else:
            logits[:, :, y, x_, u, w] = (query * key).sum(-1) / D**0.5
    return logits.reshape(B, N, H * W, H * W).softmax(-1)


@pytest.mark.parametrize("position", KINDS)
def test_every_position_kind_equals_its_description(position):
    torch.manual_seed(0)
    layer = in_float64(MHSA2d(8, heads=2, size=(3, 4), position=position))
    nn.init.normal_(layer.qkv.weight)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    v = layer.qkv(x)[:, -8:].reshape(2, 2, 4, 12)
    expected = (v @ dense_attention_weights(layer, x).transpose(-1, -2)).reshape(2, 8, 3, 4)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("position", KINDS)
def test_attention_from_a_query_is_its_row_of_the_matrix(position):
    torch.manual_seed(0)
    layer = in_float64(MHSA2d(8, heads=2, size=(3, 4), position=position))
    nn.init.normal_(layer.qkv.weight)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    row = layer.attention_from(x, (1, 2))
    torch.testing.assert_close(row, dense_attention_weights(layer, x)[:, :, 1 * 4 + 2].reshape(2, 2, 3, 4))


@pytest.mark.parametrize("tables", ["interpolate", "offset"])
@pytest.mark.parametrize("position", KINDS)
def test_any_map_size_runs_forward_and_backward(position, tables):
    layer = MHSA2d(8, heads=2, size=(5, 5), position=position, tables=tables)
    for H, W in [(5, 5), (1, 9), (8, 3), (2, 2)]:
        x = torch.randn(2, 8, H, W, requires_grad=True)
        out = layer(x)
        assert out.shape == x.shape
        out.sum().backward()
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("position", KINDS)
def test_every_parameter_gets_a_gradient(position):
    layer = MHSA2d(8, heads=2, size=(3, 4), position=position)
    layer(torch.randn(2, 8, 3, 4)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize("position", KINDS)
def test_padded_keys_have_no_effect(position):
    """A padded canvas gives what the image alone gives, with tables that keep offsets (or positions)."""
    torch.manual_seed(1)
    layer = in_float64(MHSA2d(8, heads=2, size=(6, 6), position=position, tables="offset"))
    nn.init.normal_(layer.qkv.weight)
    x = torch.randn(1, 8, 4, 3, dtype=torch.float64)
    canvas = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    canvas[:, :, :4, :3] = x
    padding = torch.ones(1, 6, 6, dtype=torch.bool)
    padding[:, :4, :3] = False
    torch.testing.assert_close(layer(canvas, padding)[:, :, :4, :3], layer(x))


def test_tables_are_initialised_with_a_standard_deviation_of_one_over_root_d():
    torch.manual_seed(0)
    layer = MHSA2d(512, heads=4, size=(64, 64))
    assert layer.rel_height.std().item() == pytest.approx(128**-0.5, rel=0.02)
    assert layer.rel_width.mean().item() == pytest.approx(0, abs=0.003)
    assert layer.qkv.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert layer.qkv.bias is None


def test_the_output_stays_channels_last():
    layer = MHSA2d(8, heads=2, size=(3, 4)).to(memory_format=torch.channels_last)
    out = layer(torch.randn(2, 8, 3, 4).to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("tables", ["interpolate", "offset"])
@pytest.mark.parametrize("position", ["relative", "absolute"])
def test_weights_of_another_size_load_by_the_rule_that_runs_other_sizes(position, tables, caplog):
    """Loaded into a layer built for 5x7 they give what the layer of 3x4 gives on a 5x7 map; a log line says so."""
    torch.manual_seed(2)
    small = MHSA2d(8, 2, (3, 4), position, tables=tables)
    large = MHSA2d(8, 2, (5, 7), position, tables=tables)
    with caplog.at_level(logging.INFO):
        large.load_state_dict(small.state_dict())
    assert len(caplog.records) == 2
    assert "resized by" in caplog.text
    x = torch.randn(1, 8, 5, 7)
    torch.testing.assert_close(large(x), small(x))


def test_the_weights_of_the_blog_listing_load_and_give_its_output():
    """The listing's arithmetic, written out: one head, no scaling, tables rel_h [1,C,1,H] and rel_w [1,C,W,1]."""
    torch.manual_seed(3)
    C, rows, columns = 6, 3, 5  # the listing calls rows "width"
    query, key, value = (nn.Conv2d(C, C, 1) for _ in range(3))
    rel_w, rel_h = torch.randn(1, C, rows, 1), torch.randn(1, C, 1, columns)
    x = torch.randn(2, C, rows, columns)
    q, k, v = (convolution(x).flatten(2) for convolution in (query, key, value))
    energy = q.transpose(1, 2) @ k + (rel_h + rel_w).flatten(2).transpose(1, 2) @ q
    expected = (v @ energy.softmax(-1).transpose(1, 2)).reshape(x.shape)

    state = {f"{name}.{kind}": tensor for name, part in [("query", query), ("key", key), ("value", value)]
             for kind, tensor in part.state_dict().items()}  # fmt: skip
    layer = MHSA2d(C, heads=1, size=(rows, columns), position="blog")
    layer.load_state_dict(state | {"rel_w": rel_w, "rel_h": rel_h})
    torch.testing.assert_close(layer(x), expected)

    several_heads = {"rel_w": rel_w.reshape(1, 2, C // 2, rows, 1), "rel_h": rel_h.reshape(1, 2, C // 2, 1, columns)}
    MHSA2d(C, heads=2, size=(rows, columns), position="blog").load_state_dict(state | several_heads)

    without = {name: tensor for name, tensor in state.items() if not name.endswith("bias")}
    layer.load_state_dict(without | {"rel_w": rel_w, "rel_h": rel_h})
    assert not layer.qkv.bias.any()
    with pytest.raises(RuntimeError, match=r"qkv\.weight"):  # half of it is not the listing's
        layer.load_state_dict({"query.weight": query.weight})


def test_the_blog_listing_is_not_the_papers_layer():
    """Its position term does not depend on the offset: shifting query and key together changes the logit."""
    torch.manual_seed(4)
    layer = in_float64(MHSA2d(4, heads=1, size=(4, 4), position="blog"))
    nn.init.normal_(layer.qkv.weight)
    constant = torch.ones(1, 4, 4, 4, dtype=torch.float64)
    # On a constant map every relative layer looks the same way from everywhere; here the logit is constant over keys.
    torch.testing.assert_close(layer.attention_from(constant, (1, 2)), torch.full((1, 1, 4, 4), 1 / 16).double())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(channels=10, heads=4), "10 channels do not divide into 4 heads"),
        (dict(channels=8, heads=0), "channels and heads must be whole and at least 1, got 8 and 0"),
        (dict(channels=8, size=(0, 3)), "size must be at least 1 cell"),
        (dict(channels=8, position="relativ"), "did you mean relative"),
        (dict(channels=8, tables="resize"), "known: interpolate, offset"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        MHSA2d(**arguments)


def test_it_is_the_operation_on_its_projections():
    torch.manual_seed(5)
    layer = MHSA2d(8, heads=2, size=(3, 4))
    x = torch.randn(2, 8, 3, 4)
    q, k, v = layer.qkv(x).reshape(2, 3, 2, 4, 3, 4).permute(1, 0, 2, 4, 5, 3)
    out = relative_attention_2d(q, k, v, layer.rel_height, layer.rel_width, backend="definition")
    torch.testing.assert_close(layer(x), out.permute(0, 1, 4, 2, 3).reshape(2, 8, 3, 4))


@pytest.mark.parametrize("position", KINDS)
@pytest.mark.parametrize(
    "mask", [torch.zeros(2, 4, 5), torch.zeros(2, 4, 5, dtype=torch.uint8), torch.zeros(1, 4, 5, dtype=torch.bool)]
)
def test_a_mask_that_would_be_added_or_broadcast_is_refused(position, mask):
    layer = MHSA2d(16, size=(4, 5), position=position)
    with pytest.raises(InputError, match=r"padding_mask must be bool of shape \(2, 4, 5\) with True for padding, got"):
        layer(torch.randn(2, 16, 4, 5), mask)


@pytest.mark.parametrize(
    "options",
    [
        *({"size": size} for size in [(14,), (14, 14, 14), (2.5, 3), "14", None, (0, 3)]),
        *({"channels": channels} for channels in [0, -64, 64.0, "64"]),
        *({"heads": heads} for heads in [0, True, 4.0, "4"]),
        {"backend": None}, {"backend": "tritn"}, {"position": None}, {"tables": 3},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_built_is_said(options):
    with pytest.raises(InputError):
        MHSA2d(**{"channels": 64, **options})


def test_a_size_may_be_one_number():
    assert MHSA2d(16, size=7).size == (7, 7)
