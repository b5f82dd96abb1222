import copy

import pytest
import timm
import torch

import botformer
from botformer.errors import InputError
from botformer.weights.convert_timm import ConvertedAttention

NAMES = ["botnet26t_256", "sebotnet33ts_256", "eca_botnext26ts_256", "botnet50ts_256"]


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    torch.manual_seed(0)
    original = timm.create_model(request.param).eval()
    return original, botformer.convert(copy.deepcopy(original))


def test_logits_and_state_dict_are_timms_at_the_native_size(pair):
    original, converted = pair
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(converted(images), original(images), rtol=1e-4, atol=1e-5)
    assert any(isinstance(module, ConvertedAttention) for module in converted.modules())
    converted.load_state_dict(original.state_dict(), strict=True)


def test_any_input_size_runs_afterwards(pair):
    _, converted = pair
    for size in ((224, 224), (193, 321)):
        with torch.no_grad():
            assert converted(torch.randn(1, 3, *size)).isfinite().all()


@pytest.mark.parametrize("options", [{}, {"scale_pos_embed": True}, {"dim_head": 16, "qkv_bias": True}, {"stride": 2}])
def test_every_form_of_the_layer_keeps_its_output_and_gradients(options):
    from timm.layers.bottleneck_attn import BottleneckAttn

    torch.manual_seed(1)
    original = torch.nn.Sequential(BottleneckAttn(32, 48, feat_size=(6, 8), **options)).double()
    converted = botformer.convert(copy.deepcopy(original))
    images = torch.randn(2, 32, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(converted(images), original(images))
    for model in (converted, original):
        model(images).square().sum().backward()
    for after, before in zip(converted.parameters(), original.parameters(), strict=True):
        torch.testing.assert_close(after.grad, before.grad)


def test_a_model_without_the_layer_is_refused():
    with pytest.raises(InputError, match="has no BottleneckAttn"):
        botformer.convert(torch.nn.Linear(2, 2))
