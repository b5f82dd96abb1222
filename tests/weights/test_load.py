import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from botformer import MHSA2d, create_backbone, create_detector, create_model, load, load_weights, model_config, save
from botformer.errors import InputError
from botformer.weights import load_state

BOT_ROWS = ["botnet50", "botnet_s1_50", "resnet50_bot_c4c5", "resnet50_nl"]


@pytest.mark.parametrize("peer", [torchvision.models.resnet50, lambda: timm.create_model("resnet50")])
def test_a_resnet50_leaves_only_the_attention_of_c5_random(peer):
    state = peer().state_dict()
    model = create_model("botnet50")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    match = load_state(model, state)
    for block in range(3):
        for name in ("qkv.weight", "rel_height", "rel_width"):
            key = f"layer4.{block}.conv2.{name}"
            assert key in match.missing
            assert torch.equal(model.state_dict()[key], before[key])
    assert len(match.missing) == 9
    assert match.unused == [f"layer4.{block}.conv2.weight" for block in range(3)]
    assert match.other_shape == []
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in match.loaded)


@pytest.mark.parametrize("name", BOT_ROWS)
def test_rows_of_the_same_depth_load_a_resnet50(name):
    state, model = torchvision.models.resnet50().state_dict(), create_model(name)
    match = load_state(model, state)
    random = [key for key in match.missing if not (".conv2." in key or "inserted" in key)]
    assert random == []
    assert match.other_shape == []


def test_what_matched_is_logged_and_another_class_count_keeps_its_own_last_layer(tmp_path, caplog):
    save_file(create_model("botnet_mini", num_classes=10).state_dict(), tmp_path / "ten.safetensors")
    model = create_model("botnet_mini", num_classes=3)
    with caplog.at_level("INFO"):
        match = load_weights(model, tmp_path / "ten.safetensors")
    assert match.other_shape == ["fc.bias", "fc.weight"]
    assert "2 of another shape, left as initialised: fc.bias, fc.weight" in caplog.text
    assert "tensors loaded" in caplog.text


def test_tables_of_another_image_size_are_resized(tmp_path):
    save_file(create_backbone("botnet_mini", image_size=48).state_dict(), tmp_path / "a.safetensors")
    model = create_backbone("botnet_mini", image_size=(96, 64))
    match = load_weights(model, tmp_path / "a.safetensors")
    assert match.missing == match.unused == match.other_shape == []
    assert model.layer4[0].conv2.rel_height.shape == (23, 32)


def test_tables_of_another_head_width_keep_their_own(tmp_path):
    save_file(create_model("botnet_mini", heads=4).state_dict(), tmp_path / "a.safetensors")
    match = load_weights(create_model("botnet_mini", heads=2), tmp_path / "a.safetensors")
    assert match.other_shape == ["layer4.0.conv2.rel_height", "layer4.0.conv2.rel_width"]


def test_the_blog_listings_names_are_translated(tmp_path):
    layer = MHSA2d(8, heads=1, size=(3, 5), position="blog")
    q, k, v = layer.qkv.weight.chunk(3)
    state = {"query.weight": q, "key.weight": k, "value.weight": v}
    state |= {f"{name}.bias": torch.ones(8) for name in ("query", "key", "value")}
    state |= {"rel_w": torch.randn(1, 8, 3, 1), "rel_h": torch.randn(1, 8, 1, 5)}
    save_file({name: tensor.detach().clone() for name, tensor in state.items()}, tmp_path / "blog.safetensors")
    match = load_weights(MHSA2d(8, heads=1, size=(3, 5), position="blog"), tmp_path / "blog.safetensors")
    assert match.missing == match.unused == match.other_shape == []


@pytest.mark.parametrize("prefix", ["model.", "net.", "backbone.", "student.encoder.", "module._orig_mod.model."])
def test_the_names_may_stand_under_any_prefix_beside_others(prefix, tmp_path, caplog):
    peer, model = create_model("botnet_nano", 4), create_model("botnet_nano", 4)
    state = {prefix + name: tensor for name, tensor in peer.state_dict().items()} | {"loss.weight": torch.ones(4)}
    torch.save({"state_dict": state, "global_step": 3}, tmp_path / "lightning.ckpt.pth")
    with caplog.at_level("INFO"):
        match = load_weights(model, tmp_path / "lightning.ckpt.pth")
    assert match.missing == match.other_shape == match.unused == []
    assert all(torch.equal(tensor, peer.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert "the names of the network stand under" in caplog.text


@pytest.mark.parametrize(
    "wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "module._checkpoint_wrapped_module"]
)
def test_a_part_of_a_network_may_be_wrapped(wrapper, tmp_path):
    peer, model = create_model("botnet_nano", 4), create_model("botnet_nano", 4)
    state = {name.replace("layer4.", f"layer4.{wrapper}."): tensor for name, tensor in peer.state_dict().items()}
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    match = load_weights(model, tmp_path / "a.pth")
    assert match.missing == match.unused == []
    assert torch.equal(model.layer4[0].conv1.weight, peer.layer4[0].conv1.weight)


def test_a_network_with_a_wrapped_part_loads_and_is_saved_as_what_is_wrapped(tmp_path):
    config = model_config(model := create_model("botnet_nano", 2), ["a", "b"])
    torch.save(model.state_dict(), tmp_path / "a.pth")
    expected = model.fc.weight.detach().clone(), model.layer4[0].conv1.weight.detach().clone()
    model.layer4 = torch.nn.DataParallel(model.layer4)
    torch.nn.init.zeros_(model.layer4.module[0].conv1.weight)
    assert load_weights(model, tmp_path / "a.pth").missing == []
    assert torch.equal(model.layer4.module[0].conv1.weight, expected[1])
    save(model, config, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors").model
    assert torch.equal(again.fc.weight, expected[0])
    assert torch.equal(again.layer4[0].conv1.weight, expected[1])


def test_of_two_networks_the_average_is_loaded_and_otherwise_both_are_named(tmp_path):
    model = create_model("botnet_nano", 4)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for names, words in ((("student.", "teacher."), "'student.' and 'teacher.'"), (("online.", "ema."), None)):
        both = {p + n: x * (p == names[1]) for p in names for n, x in state.items()}
        torch.save(both, tmp_path / "two.pth")
        if words:
            with pytest.raises(InputError, match=f"holds 2 networks that fit, under {words}"):
                load_weights(model, tmp_path / "two.pth")
        else:
            load_weights(model, tmp_path / "two.pth")
            assert torch.equal(model.fc.weight, state["fc.weight"])


@pytest.mark.parametrize(
    "wrap", [lambda m: torch.compile(m, backend="eager"), torch.nn.DataParallel, torch.optim.swa_utils.AveragedModel]
)
def test_a_wrapped_model_loads_and_is_saved_under_plain_names(wrap, tmp_path):
    peer = create_model("botnet_nano", 4)
    save(wrap(peer), model_config(peer, list("abcd")), tmp_path / "peer.safetensors")
    assert load_file(tmp_path / "peer.safetensors").keys() == peer.state_dict().keys()
    model = wrap(create_model("botnet_nano", 4))
    match = load_weights(model, tmp_path / "peer.safetensors")
    assert match.unused == match.other_shape == []
    assert [name for name in match.missing if name != "n_averaged"] == []
    images = torch.rand(1, 3, 48, 48)
    assert torch.equal(model.eval()(images), peer.eval()(images))


def test_a_detector_takes_lightnings_file_of_its_backbone_or_of_itself(tmp_path):
    detector = create_detector("faster_rcnn", "botnet_nano", 2, 64, fpn_channels=8, box_channels=8)
    backbone = {f"model.{name}": tensor + 1 for name, tensor in create_model("botnet_nano", 9).state_dict().items()}
    torch.save({"state_dict": backbone | {"loss.w": torch.ones(1)}}, tmp_path / "backbone.pth")
    assert load_weights(detector, tmp_path / "backbone.pth", "backbone").missing == []
    assert torch.equal(detector.backbone.conv1.weight, backbone["model.conv1.weight"])
    whole = {f"net.{name}": torch.zeros_like(tensor) for name, tensor in detector.state_dict().items()}
    torch.save({"state_dict": whole | {"loss.w": torch.ones(1)}}, tmp_path / "whole.pth")
    assert load_weights(detector, tmp_path / "whole.pth", "backbone").missing == []
    assert detector.box_head.fc1.weight.abs().sum() == 0


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_the_first_convolution_is_adapted_as_timms_is(channels, tmp_path, caplog):
    peer = timm.create_model("resnet50")
    torch.save(peer.state_dict(), tmp_path / "rgb.pth")
    model = create_model("resnet50", in_chans=channels)
    exchanged = create_model("resnet50")
    exchanged.conv1 = torch.nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    with caplog.at_level("INFO"):
        assert all(load_weights(m, tmp_path / "rgb.pth").missing == [] for m in (model, exchanged))
    colours = peer.conv1.weight.detach()
    expected = (
        colours.sum(1, keepdim=True) if channels == 1 else colours.repeat(1, 3, 1, 1)[:, :channels] * 3 / channels
    )
    for m in (model, exchanged):
        torch.testing.assert_close(m.conv1.weight, expected)
    torch.testing.assert_close(timm.models.adapt_input_conv(channels, colours), expected)
    assert f"conv1.weight: of 3 channels in the file, {channels} here; " in caplog.text


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="nothing in .* fits this model"):
        load_weights(create_model("botnet_mini"), tmp_path / "a.safetensors")


def test_only_weights_that_are_loaded_need_be_finite(tmp_path):
    model = create_model("botnet_nano", 3)
    state = create_model("botnet_nano", 7).state_dict()
    save_file(state | {"fc.weight": state["fc.weight"] * float("nan")}, tmp_path / "head.safetensors")
    assert load_weights(model, tmp_path / "head.safetensors").other_shape == ["fc.bias", "fc.weight"]
    save_file(state | {"conv1.weight": state["conv1.weight"] * float("nan")}, tmp_path / "conv1.safetensors")
    grey = create_model("botnet_nano", 3, in_chans=1)
    for kind in (model, grey, torch.compile(model), torch.nn.DataParallel(model)):
        with pytest.raises(InputError, match=r"not finite .* conv1\.weight"):
            load_weights(kind, tmp_path / "conv1.safetensors")


def test_a_file_may_be_named_by_whatever_stands_for_a_path(tmp_path):
    class Named:
        def __fspath__(self):
            return str(tmp_path / "a.safetensors")

    model = create_model("botnet_nano", 7)
    save_file(model.state_dict(), Named())
    assert len(load_weights(model, Named()).loaded) == len(model.state_dict())


def test_a_part_of_a_compiled_network_may_be_named(tmp_path):
    save_file(create_model("botnet_nano", 7).state_dict(), tmp_path / "a.safetensors")
    detector = create_detector("faster_rcnn", "botnet_nano", 2, 64)
    expected = load_weights(detector, tmp_path / "a.safetensors", part="backbone")
    match = load_weights(torch.compile(detector), tmp_path / "a.safetensors", part="backbone")
    assert (match.part, match.loaded) == ("backbone", expected.loaded)


def test_slips_of_loading_are_said(tmp_path):
    model = create_backbone("botnet_nano")
    with pytest.raises(InputError, match="takes a file, got a OrderedDict; tensors that are in memory are loaded by"):
        load_weights(model, model.state_dict())
    detector = create_detector("faster_rcnn", "botnet_nano", 1, 64)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="unknown part of the model 'backbon'; did you mean backbone"):
        load_weights(detector, tmp_path / "a.safetensors", part="backbon")
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    state["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    before = model.conv1.weight.clone()
    with pytest.raises(InputError, match=r"nan\.safetensors has weights that are not finite .* conv1\.weight"):
        load_weights(model, tmp_path / "nan.safetensors")
    assert torch.equal(model.conv1.weight, before)
