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


@pytest.mark.parametrize("options", [{}, {"scale_pos_embed": True}, {"stride": 2}])
@pytest.mark.parametrize("tables", ["interpolate", "offset"])
def test_torchscript_and_fx_take_the_layer_at_any_size(options, tables):
    from timm.layers.bottleneck_attn import BottleneckAttn

    torch.manual_seed(1)
    layer = botformer.convert(torch.nn.Sequential(BottleneckAttn(32, 48, feat_size=(17, 18), **options)), tables)
    scripted, graph = torch.jit.script(layer), torch.fx.symbolic_trace(layer)
    for size in ((17, 18), (5, 8), (20, 15)):
        x = torch.randn(2, 32, *size)
        torch.testing.assert_close(scripted(x), layer(x), rtol=1e-4, atol=1e-5)
        assert torch.equal(graph(x), layer(x))


def test_a_whole_model_keeps_torchscript_and_fx():
    torch.manual_seed(0)
    converted = botformer.convert(timm.create_model("botnet26t_256").eval())
    images = torch.randn(1, 3, 160, 224)
    with torch.no_grad():
        expected = converted(images)
        torch.testing.assert_close(torch.jit.script(converted)(images), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.fx.symbolic_trace(converted)(images), expected, rtol=1e-4, atol=1e-5)


def test_converting_twice_changes_nothing():
    converted = botformer.convert(timm.create_model("botnet26t_256", pretrained=False))
    layers = [module for module in converted.modules() if isinstance(module, ConvertedAttention)]
    assert botformer.convert(converted) is converted
    again = [module for module in converted.modules() if isinstance(module, ConvertedAttention)]
    assert all(before is after for before, after in zip(layers, again, strict=True))


@pytest.mark.parametrize("tables", ["interpolate", "offset"])
def test_weights_of_another_image_size_load_by_the_rule_that_runs_other_sizes(tables, caplog):
    from timm.layers.bottleneck_attn import BottleneckAttn

    torch.manual_seed(2)
    small, large = (
        botformer.convert(torch.nn.Sequential(BottleneckAttn(32, feat_size=size)), tables) for size in ((4, 6), (7, 9))
    )
    with caplog.at_level("INFO"):
        large.load_state_dict(small.state_dict())
    assert "0.pos_embed.height_rel: 7 entries in the file, 13 here; resized by" in caplog.text
    assert "0.pos_embed.width_rel: 11 entries in the file, 17 here" in caplog.text
    x = torch.randn(1, 32, 7, 9)
    torch.testing.assert_close(large(x), small(x))
