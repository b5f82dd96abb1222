"""The one-hot form through FlashAttention-3, with a stand-in for the package: it checks what the real one demands."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from botformer.attention import flash_attention_3 as module
from botformer.attention import relative_attention_2d
from botformer.attention.flash_attention_3 import flash_attention_3
from tests.attention.brute_force import random_inputs
from tests.attention.error_budget import assert_within_budget, channels_last, corner_padding


@pytest.fixture(params=["result", "result and normalizer"])
def package(request, monkeypatch):
    """Records the widths (of q, of v) it is called with."""
    widths = []

    def flash_attn_func(q, k, v, softmax_scale=None, causal=False):
        assert not causal
        assert q.dtype in (torch.bfloat16, torch.float16)
        assert q.shape == k.shape
        assert q.shape[:3] == v.shape[:3]
        width, of_values = q.shape[-1], v.shape[-1]
        assert width % 8 == 0
        assert of_values % 8 == 0
        assert width == of_values or (128 < width <= 192 and 96 < of_values <= 128)
        assert all(x.stride(-1) == 1 for x in (q, k, v))
        widths.append((width, of_values))
        out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), scale=softmax_scale)
        out = out.transpose(1, 2)
        return out if request.param == "result" else (out, None)

    stand_in = types.ModuleType("flash_attn_interface")
    stand_in.flash_attn_func = flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn_interface", stand_in)
    monkeypatch.setattr(module, "find_package", lambda: "flash_attn_interface")
    return widths


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((1, 2, 32, 32, 128, 128), (192, 128)),  # H + W = 64: as wide as it may be, and v without padding
        ((2, 1, 14, 14, 128, 128), (160, 128)),
        ((1, 2, 7, 9, 16, 24), (32, 32)),
        ((1, 1, 9, 5, 8, 40), (40, 40)),  # values wider than the queries
    ],
    ids=str,
)
def test_outputs_and_all_gradients_stay_within_the_error_budget(shape, widths, package):
    torch.manual_seed(0)
    assert_within_budget(flash_attention_3, shape, torch.bfloat16, layout=channels_last)
    assert set(package) == {widths}


@pytest.mark.parametrize("shape", [(2, 1, 6, 10, 16, 16), (2, 1, 32, 32, 128, 128)], ids=str)
def test_padded_keys_stay_within_the_error_budget(shape, package):
    """At the greatest width there is no column left for the mask."""
    torch.manual_seed(1)
    assert_within_budget(flash_attention_3, shape, torch.bfloat16, corner_padding(2, *shape[2:4], nothing_left=True))
    assert bool(package) == (shape[2] < 32)


def test_without_the_package_it_is_refused_with_the_reason():
    with pytest.raises(RuntimeError, match="FlashAttention-3 is not installed"):
        relative_attention_2d(*random_inputs(1, 1, 2, 2, 16, 16, torch.float32), backend="flash_attention_3")
