"""timm's interface gives what botformer's own gives. timm's own tests run on every row by `make timm-tests`."""

import pytest
import timm
import timm.models
import torch
from timm.models._features import FeatureGetterNet
from timm.models._manipulate import group_parameters
from timm.optim import create_optimizer_v2
from torch import nn

import botformer
import botformer.timm
from botformer.errors import InputError

SIZES = [(64, 64), (37, 71)]
ROWS = ["resnet_nano", "botnet_nano", "botnet50_half", "resnet50_nl", "resnet50_bot_c4c5", "botnet_t3"]


def images(*size, channels=3):
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("row", ROWS)
def test_weights_names_and_outputs_are_those_of_create_model(row):
    torch.manual_seed(0)
    own = botformer.create_model(row, 7, 64, zero_gamma=False)
    torch.manual_seed(0)
    model = timm.create_model(f"{row}.botformer", num_classes=7, img_size=64, zero_gamma=False)
    assert list(own.state_dict()) == list(model.state_dict())
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in own.state_dict().items())
    own.eval(), model.eval()
    maps = timm.models.FeatureListNet(model)
    for size in SIZES:
        x = images(*size)
        with torch.no_grad():
            assert torch.equal(model(x), own(x))
            c5 = model.forward_features(x)
            assert torch.equal(model.forward_head(c5), own(x))
            stages = own.stages(x)
            c5, taps = model.forward_intermediates(x)
            for found in (taps, maps(x)):
                assert all(torch.equal(*pair) for pair in zip(found[1:], stages.values(), strict=True))
            assert torch.equal(taps[0], own.stem(x))
            assert torch.equal(c5, stages["c5"])


def test_dropout_and_drop_path_are_those_of_create_model():
    own = botformer.create_model("botnet_nano", 7, dropout=0.5, drop_path=0.3, zero_gamma=False)
    model = timm.create_model("botnet_nano", num_classes=7, drop_rate=0.5, drop_path_rate=0.3)
    model.load_state_dict(own.state_dict())
    torch.manual_seed(3)
    expected = own(images(48, 48))
    torch.manual_seed(3)
    assert torch.equal(model(images(48, 48)), expected)


@pytest.mark.parametrize("feature_cls", ["list", "dict", "hook", "getter", "fx"])
def test_every_way_of_timm_to_take_features(feature_cls):
    model = timm.create_model(
        "botnet_nano.botformer",
        features_only=True,
        feature_cls=feature_cls,
        out_indices=(0, 2, 4),
        in_chans=1,
        img_size=64,
        zero_gamma=False,
    ).eval()
    assert (model.feature_info.channels(), model.feature_info.reduction()) == ([8, 64, 256], [2, 4, 8])
    with torch.no_grad():
        maps = model(images(61, 40, channels=1))
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    assert [tuple(each.shape) for each in maps] == [(2, 8, 31, 20), (2, 64, 16, 10), (2, 256, 8, 5)]


def test_heads_come_and_go():
    model = timm.create_model("botnet_nano", num_classes=0, global_pool="catavgmax").eval()
    x = images(40, 40)
    assert model(x).shape == (2, model.head_hidden_size) == (2, 2 * model.num_features)
    model.reset_classifier(6)
    assert model(x).shape == (2, 6)
    c5 = model.forward_features(x)
    assert torch.equal(model.forward_head(c5, pre_logits=True), model.global_pool(c5))
    assert model.get_classifier() is model.fc
    assert model.get_classifier(name_only=True) == "fc"
    model.reset_classifier(0, "")
    assert torch.equal(model(x), model.forward_features(x))
    with pytest.raises(InputError, match="without global pooling a map of c5 would go into the linear layer of 3"):
        model.reset_classifier(3, "")
    assert torch.equal(model(x), model.forward_features(x))
    model.reset_classifier(0)
    assert torch.equal(model(x), model.forward_features(x)), "nothing that asks for no pooling brings it back"
    model.reset_classifier(3)
    assert torch.equal(model(x), model.fc(model.forward_features(x).mean((2, 3))))


def test_stages_stay_frozen_and_are_recomputed_also_in_timm_s_list_of_maps():
    options = dict(frozen_stages=3, gradient_checkpointing=True, zero_gamma=False)
    network = timm.create_model("botnet_nano", features_only=True, out_indices=(1, 4), **options).train()
    x = images(32, 32)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    maps = network(x)
    moved = {name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])}
    assert {name.split(".")[1] for name in moved} == {"layer3", "layer4"}
    assert network.model.options.gradient_checkpointing
    maps[-1].mean().backward()
    assert [len(each.shape) for each in maps] == [4, 4]
    assert {name.split(".")[1] for name, p in network.named_parameters() if p.grad is not None} == {"layer3", "layer4"}
    network.eval()
    whole = timm.create_model("botnet_nano", **options).eval()
    whole.load_state_dict(network.model.state_dict(), strict=False)
    torch.testing.assert_close(network(x), [whole.forward_intermediates(x, intermediates_only=True)[n] for n in (1, 4)])


def test_hooks_of_stages_see_every_call_and_what_would_lose_an_option_is_refused():
    options = dict(frozen_stages=3, gradient_checkpointing=True)
    made = dict(options, features_only=True, out_indices=(1, 4))
    network = timm.create_model("botnet_nano", feature_cls="hook", **made).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    assert [each.shape[1] for each in network(images(32, 32))] == network.feature_info.channels()
    moved = {name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])}
    assert moved
    assert not any("layer1" in name or "layer2" in name for name in moved)
    pruned = timm.create_model("botnet_nano", features_only=True, out_indices=(1, 2), **options).train()
    assert [each.shape[1] for each in pruned(images(32, 32))] == pruned.feature_info.channels()
    for same in ("Getter", FeatureGetterNet):
        timm.create_model("botnet_nano", feature_cls=same, **made)
    with pytest.raises(InputError, match="'list' takes the network apart, and frozen_stages and gradient_checkp"):
        timm.create_model("botnet_nano", feature_cls="list", **made)


@pytest.mark.parametrize("through", ["network", "features"])
def test_gradients_are_the_same_with_checkpointing(through):
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = timm.create_model("botnet_nano", features_only=through == "features", zero_gamma=False)
        model.set_grad_checkpointing(enable)
        out = model(images(48, 40))
        sum(each.square().mean() for each in (out if through == "features" else [out])).backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_groups_follow_the_order_of_the_network():
    model = timm.create_model("resnet50_bot_c4c5", num_classes=5)
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    order = ["conv1", "layer1.0", "layer3.4", "layer3.inserted_attention", "layer3.5", "layer4.inserted_attention"]
    order += ["layer4.2", "fc"]
    ids = [{group for name, group in groups.items() if name.startswith(f"{start}.")} for start in order]
    assert all(len(group) == 1 for group in ids)
    assert ids == sorted(ids, key=min)
    assert len(set.union(*ids)) == len(order)
    assert max(groups.values()) == 1 + sum(model.row.blocks) + 2  # stem 0, each block its own, the head the last
    coarse = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    assert set(coarse.values()) == set(range(6))


def test_position_tables_are_not_decayed():
    model = timm.create_model("botnet_nano", num_classes=5)
    tables = {id(p) for name, p in model.named_parameters() if "rel_" in name}
    assert tables
    assert len(model.no_weight_decay()) == len(tables)
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)
    for group in optimizer.param_groups:
        if any(id(parameter) in tables for parameter in group["params"]):
            assert group["weight_decay"] == 0
    scales = [group["lr_scale"] for group in optimizer.param_groups]
    assert scales == sorted(scales)
    assert min(scales) < max(scales) == 1


def randomized(model):
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.double().eval()


@pytest.mark.parametrize("row", ["botformer_resnet50", "resnet50_half"])
@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilated_stages_hold_what_the_strided_ones_held_on_every_nth_position(row, output_stride):
    """The a-trous identity, to rounding, at odd sizes, too: with the stride in the 3x3 or in the first 1x1."""
    own = randomized(timm.create_model(row, num_classes=0))
    dilated = timm.create_model(row, num_classes=0, output_stride=output_stride).double().eval()
    dilated.load_state_dict(own.state_dict())
    assert dilated.feature_info[-1]["reduction"] == output_stride
    for size in ((64, 96), (75, 49)):
        with torch.no_grad():
            _, expected = own.forward_intermediates(images(*size).double())
            _, found = dilated.forward_intermediates(images(*size).double())
        for info, strided, full in zip(own.feature_info, expected, found, strict=True):
            step = max(1, info["reduction"] // output_stride)
            torch.testing.assert_close(full[:, :, ::step, ::step], strided, rtol=1e-9, atol=1e-9)


def test_a_botnet_at_output_stride_16_is_the_row_of_stride_1():
    s1 = randomized(timm.create_model("botnet_s1_50_half", num_classes=3, img_size=64))
    model = timm.create_model("botnet50_half", num_classes=3, img_size=64, output_stride=16).double().eval()
    model.load_state_dict(s1.state_dict())
    x = images(64, 80).double()
    assert torch.equal(model(x), s1(x))
    at_8 = timm.create_model("botnet50_half", features_only=True, img_size=64, output_stride=8).eval()
    assert [tuple(each.shape[2:]) for each in at_8(images(64, 80))] == [(32, 40), (16, 20), (8, 10), (8, 10), (8, 10)]


def test_output_stride_is_an_option_of_every_network():
    backbone = botformer.create_backbone("botnet50_half", 64, output_stride=8)
    assert backbone.strides == {"c2": 4, "c3": 8, "c4": 8, "c5": 8}
    model = botformer.create_model("botnet50_half", 2, 64, output_stride=16)
    assert botformer.model_config(model, ["a", "b"])["options"]["output_stride"] == 16


@pytest.mark.parametrize("row", ["botnet_nano", "resnet50_nl"])
def test_scripted_networks_give_the_same_at_any_size(row):
    model = timm.create_model(row, num_classes=5, img_size=64, zero_gamma=False).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.5)
    scripted = torch.jit.script(model)
    for size in SIZES:
        x = images(*size).double()
        with torch.no_grad():
            torch.testing.assert_close(scripted(x), model(x), rtol=1e-9, atol=1e-9)


def test_it_compiles_in_bfloat16():
    torch._dynamo.reset()
    model = timm.create_model("botnet_nano.botformer", num_classes=5).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(images(48, 40)), model(images(48, 40)))
