"""Networks that somebody built: saved with what is needed to build them again, and loaded."""

import os
import stat

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import botformer
from botformer import cli
from botformer.backbone.variants import ROWS
from botformer.errors import InputError
from botformer.weights import read_state_dict

SMALL = dict(fpn_channels=16, box_channels=32, mask_channels=16, mask_convolutions=1, rpn_post_nms_top_n=20)
SIZES = [(48, 64), [64, 48], np.array([48, 64]), 48]


def saved(model, names, file):
    botformer.save(model, botformer.model_config(model, names), file)
    return botformer.load(file).model


@pytest.mark.parametrize("size", SIZES, ids=repr)
@pytest.mark.parametrize("channels", [3, 1, 4])
def test_a_classifier_is_what_it_was(size, channels, tmp_path):
    model = botformer.create_model("botnet_nano", 3, size, in_chans=channels, position="absolute", heads=2).eval()
    model.mean, model.std = [0.3] * channels, [0.2] * channels
    again = saved(model, ["a", "b", "c"], tmp_path / "a.safetensors")
    assert again.image_size == model.image_size
    images = torch.rand(2, channels, 48, 64)
    assert torch.equal(again(again.preprocess(images)), model(model.preprocess(images)))


@pytest.mark.parametrize("size", SIZES, ids=repr)
@pytest.mark.parametrize("channels", [3, 1, 4])
def test_a_detector_is_what_it_was(size, channels, tmp_path):
    statistics = dict(mean=[0.1] * channels, std=[0.3] * channels)
    torch.manual_seed(0)
    model = botformer.create_detector(
        "mask_rcnn", "botnet_nano", 2, size, test_size=(72, 96), in_chans=channels, **statistics, **SMALL
    ).eval()
    again = saved(model, [(7, "a"), (9, "b")], tmp_path / "a.safetensors")
    assert (again.image_size, again.test_size) == (model.image_size, (72, 96))
    image = torch.rand(channels, 70, 90)
    (found,), (expected,) = again([image]), model([image])
    assert len(expected["boxes"]) > 0
    assert torch.equal(found["boxes"], expected["boxes"])
    assert torch.equal(found["scores"], expected["scores"])
    assert botformer.load(tmp_path / "a.safetensors").model_config["categories"] == [[7, "a"], [9, "b"]]


@pytest.mark.parametrize(
    "size",
    [True, 0, -1, 10**9, 64.0, 64.5, "64", b"@`", None, {64: 1, 96: 2}, {64, 96}, range(64, 66), [64], [64, True],
     [64.0, 96], np.array([64.0, 96.0]), np.array([[64, 96]]), torch.tensor([True, True])],
    ids=repr,
)  # fmt: skip
def test_what_is_no_size_is_refused_wherever_a_size_is_taken(size):
    backbone = botformer.create_backbone("botnet_nano")
    takes = [
        lambda: botformer.create_model("botnet_nano", 3, size),
        lambda: botformer.create_detector("faster_rcnn", backbone, 2, size, **SMALL),
        lambda: botformer.create_detector("faster_rcnn", backbone, 2, 64, test_size=size, **SMALL),
    ]
    own_default = takes[:1] + takes[2:] if size is None else takes[2:] if repr(size) == "0" else []
    for take in takes:
        if take not in own_default:
            with pytest.raises(InputError, match="image_size|test_size"):
                take()


@pytest.mark.parametrize("size", [np.int64(48), torch.tensor(48), np.array([48, 48]), torch.tensor([48, 48])], ids=repr)
def test_a_canvas_of_detection_is_a_size_of_numpy_or_torch(size):
    assert botformer.create_detector("faster_rcnn", "botnet_nano", 2, 64, test_size=size, **SMALL).test_size == (48, 48)


def test_rows_can_be_told_apart():
    assert len(set(ROWS.values())) == len(ROWS)


def changed():
    model = botformer.create_model("botnet_nano", 2)
    model.layer1 = nn.Identity()
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: botformer.create_model("botnet_nano", 3), "has 3 classes, but there are 2 names"),
        (lambda: botformer.deploy.optimize(botformer.create_model("botnet_nano", 2)), "no longer the botnet_nano"),
        (changed, "no longer the botnet_nano that it was built as: layer1"),
        (lambda: nn.Linear(2, 2), "got Linear"),
        (
            lambda: botformer.create_detector(
                "faster_rcnn", timm.create_model("resnet10t", features_only=True), 2, 64, **SMALL
            ),
            "around a row",
        ),
    ],
)
def test_what_could_not_be_built_again_is_refused(model, words):
    with pytest.raises(InputError, match=words):
        botformer.model_config(model(), ["a", "b"])


@pytest.mark.parametrize(
    ("field", "value"), [("image_size", None), ("categories", [[7, "a"], [7, "b"]]), ("mean", [10**400] * 3)]
)
def test_a_config_that_somebody_edited_does_not_change_the_network_silently(field, value, tmp_path):
    model, file = botformer.create_detector("faster_rcnn", "botnet_nano", 2, 64, **SMALL), tmp_path / "a.safetensors"
    botformer.save(model, botformer.model_config(model, ["a", "b"]) | {field: value}, file)
    with pytest.raises(InputError, match=str(file)):
        botformer.load(file)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_end_evaluate_and_predict(value, tmp_path, capsys):
    model = botformer.create_detector("faster_rcnn", "botnet_nano", 1, 64, **SMALL)
    with torch.no_grad():
        model.fpn.lateral["c3"].bias[2] = value
    file, out = tmp_path / "bad.safetensors", str(tmp_path / "out")
    botformer.save(model, botformer.model_config(model, ["a"]), file)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = r"bad.safetensors has weights that are not finite .* in 1 of \d+ tensors: fpn.lateral.c3.bias"
    with pytest.raises(InputError, match=words):
        botformer.load(file)
    for command in (
        ["predict", str(tmp_path / "a.png"), "--checkpoint", str(file)],
        ["evaluate", str(file), "--data", "nuclei"],
    ):
        assert cli.main([*command, "--out", out]) == 2
        assert "fpn.lateral.c3.bias" in "".join(capsys.readouterr().err.split())
    assert not read_state_dict(file)["fpn.lateral.c3.bias"].isfinite().all()  # to look at


def test_the_commands_say_that_they_read_three_channels(tmp_path, capsys):
    model, file = botformer.create_model("botnet_nano", 1, in_chans=4), tmp_path / "a.safetensors"
    botformer.save(model, botformer.model_config(model, ["a"]), file)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = str(tmp_path / "out")
    for command in (
        ["predict", str(tmp_path / "a.png"), "--checkpoint", str(file)],
        ["evaluate", str(file), "--data", "x"],
    ):
        assert cli.main([*command, "--out", out]) == 2
        assert "takesimagesof4channels" in "".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn"])
def test_a_detector_built_on_meta_works_once_it_has_memory(kind, assign):
    more = SMALL | dict(keypoint_channels=16, keypoint_convolutions=1)
    torch.manual_seed(0)
    model = botformer.create_detector(kind, "botnet_nano", 2, 64, **more).eval()
    with torch.device("meta"):
        later = botformer.create_detector(kind, "botnet_nano", 2, 64, **more).eval()
    if not assign:
        later.to_empty(device="cpu")
        for tensor in (*later.parameters(), *later.buffers()):
            tensor.detach().fill_(7)
    later.load_state_dict(model.state_dict(), assign=assign)
    image = torch.rand(3, 50, 40)
    for found, expected in ((later([image]), model([image])), (later.rpn.anchors.cells, model.rpn.anchors.cells)):
        assert str(found) == str(expected)
    assert (later.mean, later.std) == (model.mean, model.std)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_saved_file_may_be_read_by_whom_any_new_file_may(umask, mode, tmp_path):
    model, file = botformer.create_model("botnet_nano", 1), tmp_path / "a.safetensors"
    before = os.umask(umask)
    try:
        saved(model, ["a"], file)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == mode


def test_a_config_of_an_exchanged_head_or_of_names_that_are_none_is_refused():
    model = botformer.create_model("botnet_nano", 3)
    with pytest.raises(InputError, match="a list, a name per class"):
        botformer.model_config(model, "abc")
    crane = ["crane", "crane", "bittern"]  # of ImageNet, the bird and the machine
    assert botformer.model_config(model, crane)["class_names"] == crane
    model.fc = nn.Sequential(nn.Dropout(0.1), nn.Linear(model.fc.in_features, 3))
    with pytest.raises(InputError, match="fc is a Sequential now"):
        botformer.model_config(model, ["a", "b", "c"])
