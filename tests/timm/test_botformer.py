"""What timm's registry knows of our rows, and weights that come and go through timm."""

import importlib

import pytest
import timm
import timm.models
import torch
from PIL import Image
from torchvision.models import resnet50

import botformer
import botformer.timm.botformer as registered
from botformer.errors import InputError
from botformer.timm import TIMM_NAMES, TimmNetwork

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_every_row_has_a_name_in_timm_and_timms_own_names_stay_timms():
    assert list(TIMM_NAMES) == botformer.list_models()
    renamed = {row for row, name in TIMM_NAMES.items() if name != row}
    assert renamed == {"resnet50", "resnet101", "resnet152", "resnet200"}
    assert all(TIMM_NAMES[row] == f"botformer_{row}" for row in renamed)
    assert type(timm.create_model("resnet50")) is timm.models.ResNet
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):  # never another network under a name of ours
        timm.create_model("resnet50.botformer")


def test_timm_lists_them():
    found = timm.list_models("*.botformer", include_tags=True)
    assert sorted(found) == sorted(f"{name}.botformer" for name in TIMM_NAMES.values())
    assert sorted(timm.list_models("*botformer*", include_tags=True)) == sorted(found)
    assert sorted(timm.list_models(module="botformer")) == sorted(TIMM_NAMES.values())
    assert timm.list_models("botnet50") == ["botnet50"]
    assert not timm.list_models("*.botformer", pretrained=True)


def test_importing_again_keeps_the_names(recwarn):
    before = dict(TIMM_NAMES)
    importlib.reload(registered)
    assert before == registered.TIMM_NAMES


@pytest.mark.parametrize("row", [*TIMM_NAMES])
def test_the_cfg_of_every_row_is_complete_and_true(row):
    with torch.device("meta"):
        model = timm.create_model(f"{TIMM_NAMES[row]}.botformer").eval()
        cfg = model.pretrained_cfg
        assert model.forward_features(torch.empty(1, *cfg["input_size"])).shape[2:] == cfg["pool_size"]
        assert model.forward(torch.empty(1, *cfg["input_size"])).shape == (1, cfg["num_classes"])
    assert (cfg["architecture"], cfg["tag"]) == (TIMM_NAMES[row], "botformer")
    assert (cfg["mean"], cfg["std"]) == (tuple(model.mean), tuple(model.std))
    assert cfg["fixed_input_size"] is False
    for layer in (cfg["first_conv"], cfg["classifier"]):
        assert f"{layer}.weight" in model.state_dict()
    assert [maps["num_chs"] for maps in model.feature_info][1:] == list(model.channels.values())


def test_data_config_and_transform_are_those_of_the_row():
    model = timm.create_model("botnet_t5.botformer", num_classes=3)
    config = timm.data.resolve_data_config(model=model)
    assert (config["input_size"], config["crop_pct"], config["interpolation"]) == ((3, 256, 256), 0.875, "bicubic")
    assert timm.data.create_transform(**config)(Image.new("RGB", (300, 400))).shape == (3, 256, 256)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(pretrained=True), "has no ImageNet weights"),
        (dict(output_stride=4), "expected 8, 16"),
        (dict(output_stride=16), "has a stride of 8 pixels"),
        (dict(heads=3), "do not divide"),
        (dict(position="relativ"), "did you mean relative"),
        (dict(drop_path_rate=1.0), "less than 1"),
        (dict(img_size=(1, 2, 3)), "img_size must be"),
        (dict(in_chans=0), "in_chans must be"),
        (dict(num_classes=-1), "num_classes must be"),
        (dict(global_pool=""), "num_classes=0"),
    ],
)
def test_what_is_wrong_is_said(arguments, says):
    with pytest.raises(InputError, match=says):
        timm.create_model("botnet_nano.botformer", **arguments)


def test_an_unknown_argument_is_a_type_error_as_in_timm():
    with pytest.raises(TypeError, match="not_an_argument"):
        timm.create_model("botnet_nano", not_an_argument=1)


@pytest.fixture
def saved(tmp_path):
    model = botformer.create_model("botnet_nano", 3, 64, zero_gamma=False).eval()
    torch.nn.init.normal_(model.fc.weight)
    file = tmp_path / "net.safetensors"
    botformer.save(model, botformer.model_config(model, ["a", "b", "c"]), file)
    return model, file


def test_a_file_of_save_loads_as_a_checkpoint_of_timms(saved):
    model, file = saved
    arguments = dict(num_classes=3, img_size=64, checkpoint_path=str(file))
    assert torch.equal(timm.create_model("botnet_nano.botformer", **arguments).eval()(IMAGES), model(IMAGES))
    # Tables of another size are resized, which is what the network does at that size anyway.
    other = timm.create_model("botnet_nano.botformer", **(arguments | dict(img_size=96))).eval()
    large = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(other(large), model(large))


def test_a_file_of_save_loads_as_pretrained_weights(saved):
    model, file = saved
    overlay = dict(file=str(file), num_classes=3)
    arguments = dict(pretrained=True, pretrained_cfg_overlay=overlay, img_size=64)
    assert torch.equal(timm.create_model("botnet_nano", **arguments).eval()(IMAGES), model(IMAGES))
    grey = timm.create_model("botnet_nano", num_classes=5, in_chans=1, **arguments).eval()
    torch.testing.assert_close(grey.conv1.weight, model.conv1.weight.sum(1, keepdim=True))
    assert grey(IMAGES[:, :1]).shape == (2, 5)
    maps = timm.create_model("botnet_nano", features_only=True, **arguments).eval()(IMAGES)
    assert torch.equal(maps[-1], model.stages(IMAGES)["c5"])


def test_a_state_dict_of_torchvisions_resnet_loads(tmp_path):
    peer = resnet50(num_classes=2).eval()
    torch.save(peer.state_dict(), tmp_path / "resnet.pth")
    model = timm.create_model("botformer_resnet50", num_classes=2)
    timm.models.load_checkpoint(model, str(tmp_path / "resnet.pth"))
    torch.testing.assert_close(model.eval()(IMAGES), peer(IMAGES))
    match = botformer.load_weights(timm.create_model("botnet50", num_classes=2), tmp_path / "resnet.pth")
    assert {name.rpartition(".conv2")[0] for name in match.unused} == {f"layer4.{block}" for block in range(3)}


def test_a_folder_of_timms_for_the_hub_comes_back(tmp_path):
    model = timm.create_model("botnet_nano.botformer", num_classes=4, img_size=80, heads=2, zero_gamma=False).eval()
    timm.models.save_for_hf(model, tmp_path / "net")
    again = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    assert isinstance(again, TimmNetwork)
    assert torch.equal(again(IMAGES), model(IMAGES))
