import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from botformer import MHSA2d, create_backbone, create_model, load_weights
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


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"encoder.weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="nothing in .* fits this model"):
        load_weights(create_model("botnet_mini"), tmp_path / "a.safetensors")
