"""`convert` on the attention listing that is copied everywhere; here it is written anew, from its description."""

import copy
import logging

import pytest
import torch
from torch import nn

import botformer
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError

HEADS_AND_SIZES = [(1, (3, 5)), (4, (7, 7)), (2, (5, 3)), (4, (1, 6)), (2, (6, 1)), (1, (1, 1))]


class CopiedAttention(nn.Module):
    """Absolute embedding r = rel_h + rel_w of the query, logits q_i . k_j + r_i . q_j, nothing scaled.

    The tables are named the other way round: rel_w runs along the rows. `named_rightly` exchanges the names.
    """

    names = ("query", "key", "value")

    def __init__(self, channels, size, heads, bias=True, named_rightly=False, transposed=True):
        super().__init__()
        self.heads, self.transposed = heads, transposed
        for name in self.names:
            setattr(self, name, nn.Conv2d(channels, channels, kernel_size=1, bias=bias))
        along_rows = nn.Parameter(torch.randn(1, heads, channels // heads, size[0], 1))
        along_columns = nn.Parameter(torch.randn(1, heads, channels // heads, 1, size[1]))
        self.rel_h, self.rel_w = (along_rows, along_columns) if named_rightly else (along_columns, along_rows)

    def forward(self, x):
        shape, per_head = x.shape, (len(x), self.heads, x.shape[1] // self.heads, -1)
        q, k, v = (getattr(self, name)(x).view(per_head) for name in self.names)
        content_position = (self.rel_h + self.rel_w).view(1, self.heads, per_head[2], -1).transpose(2, 3)
        logits = q.transpose(2, 3) @ k
        logits = logits + (content_position @ q if self.transposed else (content_position @ q).transpose(2, 3))
        return (v @ logits.softmax(-1).transpose(2, 3)).view(shape)


class OtherNames(CopiedAttention):
    names = ("q_conv", "f_key", "to_v")


class Network(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(attention, nn.ReLU()))

    def forward(self, x):
        return self.blocks(x)


@pytest.mark.parametrize(
    "variant", [{}, {"bias": False}, {"named_rightly": True}, {"names": "other"}], ids=["", "bias", "names", "q_conv"]
)
@pytest.mark.parametrize(("heads", "size"), HEADS_AND_SIZES)
def test_the_listing_is_found_and_gives_the_same(heads, size, variant, caplog):
    torch.manual_seed(0)
    options = dict(variant)
    kind = OtherNames if options.pop("names", "") else CopiedAttention
    original = Network(kind(8, size, heads, **options)).double().eval()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = original(images)
    with caplog.at_level(logging.INFO):
        converted = botformer.convert(copy.deepcopy(original))
    layer = converted.blocks[1][0]
    assert (type(layer), layer.position, layer.heads, layer.size) == (MHSA2d, "blog", heads, size)
    torch.testing.assert_close(converted(images), expected, rtol=1e-10, atol=1e-12)
    assert "1 layers are the copied attention listing" in caplog.text
    assert "absolute" in caplog.text
    assert "not scaled" in caplog.text
    assert converted(torch.randn(1, 3, 9, 4, dtype=torch.float64)).isfinite().all()  # and now any size
    assert botformer.convert(converted).blocks[1][0] is layer  # twice is once


def test_gradients_are_the_same():
    torch.manual_seed(0)
    original = Network(CopiedAttention(8, (4, 6), 2)).double()
    converted = botformer.convert(copy.deepcopy(original))
    images = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    for model in (original, converted):
        model(images).square().sum().backward()
    before, after = original.blocks[1][0], converted.blocks[1][0]
    projections = torch.cat([getattr(before, name).weight.grad for name in before.names])
    torch.testing.assert_close(after.qkv.weight.grad, projections)
    torch.testing.assert_close(after.abs_height.grad, before.rel_w.grad.flatten(0, 2)[..., 0].T)
    torch.testing.assert_close(after.abs_width.grad, before.rel_h.grad.flatten(0, 2)[:, 0].T)


def test_a_layer_that_only_looks_like_it_is_left_as_it_is(caplog):
    original = Network(CopiedAttention(8, (4, 4), 2, transposed=False))
    with pytest.raises(InputError, match="has no BottleneckAttn"):
        botformer.convert(original)
    assert "computes something else; it is left as it is" in caplog.text
    assert isinstance(original.blocks[1][0], CopiedAttention)


def test_the_papers_layer_starts_as_the_listing_without_its_position_term():
    torch.manual_seed(0)
    original = Network(CopiedAttention(8, (4, 6), 2)).double().eval()
    images = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    blog = botformer.convert(copy.deepcopy(original))
    for start in (original, blog):  # in one step or in two
        real = botformer.convert(copy.deepcopy(start), position="relative")
        layer = real.blocks[1][0]
        assert (layer.position, layer.size, layer.heads) == ("relative", (4, 6), 2)
        without_positions = copy.deepcopy(original)
        nn.init.zeros_(without_positions.blocks[1][0].rel_h)
        nn.init.zeros_(without_positions.blocks[1][0].rel_w)
        torch.testing.assert_close(real(images), without_positions(images))
        real(images).square().sum().backward()
        assert all(parameter.grad.any() for parameter in layer.position_tables().values())


def test_the_layer_alone_is_converted_too():
    layer = CopiedAttention(8, (4, 6), 2)
    x = torch.randn(1, 8, 4, 6)
    torch.testing.assert_close(botformer.convert(layer)(x), layer(x), rtol=1e-4, atol=1e-5)


def test_other_attention_is_not_taken_for_it():
    class Squeezed(nn.Module):
        """Query and key are narrower, and there are no tables."""

        def __init__(self):
            super().__init__()
            self.query, self.key, self.value = (nn.Conv2d(8, width, 1) for width in (1, 1, 8))
            self.gamma = nn.Parameter(torch.zeros(1))

    with pytest.raises(InputError, match="has no BottleneckAttn"):
        botformer.convert(nn.Sequential(Squeezed()))
