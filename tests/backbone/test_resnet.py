import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from botformer import create_backbone, create_model, list_models
from botformer.backbone.blocks import Bottleneck
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.resnet import Backbone, Classifier, Stage
from botformer.backbone.variants import ROWS, Row
from botformer.errors import InputError
from botformer.recipes.model_options import make_options


def sizes_into_attention(name, size):
    seen = []
    with torch.device("meta"):
        model = create_backbone(name, image_size=size).eval()
        for module in model.modules():
            if isinstance(module, MHSA2d):
                module.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
        model(torch.empty(1, 3, size, size))
    return seen


def test_the_three_attentions_at_1024_px_have_maps_of_64_32_and_32_cells():
    assert sizes_into_attention("botnet50", 1024) == [(64, 64), (32, 32), (32, 32)]


def test_all_three_attentions_of_s1_at_224_px_have_maps_of_14_cells():
    assert sizes_into_attention("botnet_s1_50", 224) == [(14, 14)] * 3


@pytest.mark.parametrize("name", list_models())
def test_every_row_builds_and_runs_on_meta(name):
    with torch.device("meta"):
        model, backbone = create_model(name, num_classes=5), create_backbone(name)
        assert model(torch.empty(2, 3, 64, 96)).shape == (2, 5)
        maps = backbone(torch.empty(2, 3, 193, 97), torch.zeros(2, 193, 97, dtype=torch.bool))
    assert set(model.state_dict()) - set(backbone.state_dict()) == {"fc.weight", "fc.bias"}
    for stage, feature_map in maps.items():
        stride = backbone.strides[stage]
        assert feature_map.shape == (2, backbone.channels[stage], -(-193 // stride), -(-97 // stride))


def test_odd_maps_are_pooled_to_the_size_of_the_shortcut():
    backbone = create_backbone("botnet50").eval()
    assert backbone(torch.randn(1, 3, 193, 97))["c5"].shape == (1, 2048, 7, 4)


@pytest.mark.parametrize("name", ["resnet_mini", "botnet_mini", "botnet_t3"])
def test_blocks_start_as_the_identity_on_non_negative_inputs(name):
    torch.manual_seed(0)
    model = create_model(name)
    blocks = [m for m in model.modules() if isinstance(m, Bottleneck) and m.downsample is None]
    for block in blocks[:2]:
        x = torch.rand(2, block.conv1.in_channels, 6, 6)
        expected = x if isinstance(block.act, nn.ReLU) else nn.functional.silu(x)
        torch.testing.assert_close(block(x), expected)


def test_padding_changes_nothing_inside_the_image():
    """c5 of a padded canvas equals c5 of the image alone where the convolutions cannot see the canvas either."""
    torch.manual_seed(0)
    layer_input = {}
    backbone = create_backbone("botnet_mini", image_size=64, tables="offset", zero_gamma=False).eval()
    for module in backbone.modules():
        if isinstance(module, MHSA2d):
            nn.init.normal_(module.qkv.weight, std=0.5)
            module.register_forward_hook(lambda m, inputs, out: layer_input.update(x=inputs, out=out))
    canvas = torch.zeros(1, 3, 64, 64)
    canvas[..., :40, :24] = torch.randn(1, 3, 40, 24)
    padding = torch.ones(1, 64, 64, dtype=torch.bool)
    padding[:, :40, :24] = False
    backbone(canvas, padding)
    (x, padding_mask), out = layer_input["x"], layer_input["out"]
    assert padding_mask.shape == (1, 8, 8)
    assert (~padding_mask).nonzero()[:, 1:].max(0).values.tolist() == [4, 2]
    attention = next(m for m in backbone.modules() if isinstance(m, MHSA2d))
    torch.testing.assert_close(attention(x[:, :, :5, :3]), out[:, :, :5, :3])


def test_frozen_stages_neither_learn_nor_move_their_statistics():
    model = create_model("botnet_mini", frozen_stages=3).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"layer3", "layer4", "fc"}


def test_gradient_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    plain = create_model("botnet_mini", zero_gamma=False)
    recomputing = create_model("botnet_mini", zero_gamma=False, gradient_checkpointing=True)
    recomputing.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 48, 48)
    for model in (plain, recomputing):
        model.train()(images).square().sum().backward()
    for (name, mine), other in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad), name
    for (name, mine), other in zip(plain.named_buffers(), recomputing.buffers(), strict=True):
        assert torch.equal(mine, other), name  # BatchNorm counts a batch once


def test_gradient_checkpointing_compiles_and_counts_a_batch_once():
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = create_model("botnet_nano", 4, zero_gamma=False).train()
    recomputing = create_model("botnet_nano", 4, zero_gamma=False, gradient_checkpointing=True).train()
    recomputing.load_state_dict(plain.state_dict())
    images = torch.randn(4, 3, 32, 32)
    plain(images).square().sum().backward()
    torch.compile(recomputing, backend="eager", fullgraph=True)(images).square().sum().backward()
    for (name, mine), other in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, msg=name)
    for (name, mine), other in zip(plain.named_buffers(), recomputing.buffers(), strict=True):
        torch.testing.assert_close(mine, other, msg=name)
    assert plain.bn1.num_batches_tracked == recomputing.layer1[0].bn1.num_batches_tracked == 1


@pytest.mark.parametrize("channels", [1, 4])
def test_a_first_convolution_for_other_channels_runs_and_preprocess_agrees(channels):
    exchanged, made = create_model("botnet_nano", 5), create_model("botnet_nano", 5, in_chans=channels)
    exchanged.conv1 = nn.Conv2d(channels, 8, 3, 2, 1, bias=False)
    images = torch.rand(2, channels, 48, 48)
    for model in (exchanged, made):
        assert model.in_chans == channels
        assert model(model.preprocess(images)).shape == (2, 5)
        torch.testing.assert_close(model.preprocess(images), (images - 0.449) / 0.226)  # ImageNet's averages
        model.mean, model.std = [0.5] * channels, [0.1] * channels
        torch.testing.assert_close(model.preprocess(images), (images - 0.5) / 0.1)
        with pytest.raises(InputError, match=rf"images must be \(batch, {channels}, height, width\)"):
            model(torch.rand(2, 3, 48, 48))
    made.mean = [0.5, 0.5, 0.5]
    with pytest.raises(InputError, match=f"mean has 3 values, but images have {channels} channels"):
        made.preprocess(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_are_cast_to_the_type_of_the_weights(dtype):
    torch.manual_seed(0)
    model = create_model("botnet_nano", 5, zero_gamma=False).eval()
    images = torch.randn(2, 3, 48, 48)
    expected = model(images)
    logits = model.to(dtype)(images)
    assert logits.dtype == dtype
    assert (logits.float() - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize(
    "size", [[48, 64], (np.int64(48), np.int32(64)), np.array([48, 64]), torch.tensor([48, 64]), torch.Size([48, 64])]
)
def test_numbers_of_numpy_and_lists_are_sizes(size):
    assert create_model("botnet_nano", np.int64(5), size).image_size == (48, 64)
    assert create_backbone("botnet_nano", np.int64(48)).image_size == (48, 48)


def test_drop_path_grows_linearly_to_the_last_block():
    with torch.device("meta"):
        model = create_model("botnet50", drop_path=0.15)
    rates = [block.drop_path.p for block in model.modules() if isinstance(block, Bottleneck)]
    assert rates == pytest.approx([0.15 * i / 15 for i in range(16)])


def test_the_shortcut_activation_is_an_option():
    options = dict(zero_gamma=False)
    plain, activated = (
        create_model("botnet_mini", **options),
        create_model("botnet_mini", shortcut_activation=True, **options),
    )
    activated.load_state_dict(plain.state_dict(), strict=True)
    images = torch.randn(2, 3, 48, 48)
    assert not torch.allclose(plain.eval()(images), activated.eval()(images))


def test_frozen_batch_norm_takes_the_same_state_dict():
    live, frozen = create_model("botnet_mini"), create_model("botnet_mini", normalization="frozen")
    frozen.load_state_dict(live.state_dict(), strict=True)
    images = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(frozen.train()(images), live.eval()(images), rtol=1e-4, atol=1e-4)
    assert not any(".bn" in name or "bn1" in name for name, _ in frozen.named_parameters())


def test_the_whole_model_compiles_without_a_graph_break():
    torch._dynamo.reset()
    model = create_model("botnet_mini").eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.no_grad():
        for size in ((48, 48), (40, 56)):
            images = torch.randn(2, 3, *size)
            torch.testing.assert_close(compiled(images), model(images))


def test_it_exports_with_dynamic_height_and_width():
    model = create_backbone("botnet_mini").eval()
    height, width = torch.export.Dim("h", min=2, max=64), torch.export.Dim("w", min=2, max=64)
    dynamic = ({2: 8 * height, 3: 8 * width}, None)
    program = torch.export.export(model, (torch.randn(1, 3, 48, 64), None), dynamic_shapes=dynamic)
    for size in ((48, 64), (32, 96), (80, 40)):
        images = torch.randn(1, 3, *size)
        torch.testing.assert_close(program.module()(images, None)["c5"], model(images)["c5"], rtol=1e-4, atol=1e-4)


def test_bf16_autocast_trains_and_stays_close():
    torch.manual_seed(0)
    model = create_model("botnet_mini", zero_gamma=False).eval()
    images = torch.randn(4, 3, 48, 48)
    exact = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
        assert logits.dtype == torch.bfloat16
        logits.float().square().sum().backward()
    assert (logits - exact).norm() < 0.03 * exact.norm()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_channels_last_gives_the_same():
    torch.manual_seed(0)
    model, images = create_model("botnet_mini", zero_gamma=False).eval(), torch.randn(2, 3, 48, 48)
    expected = model(images)
    out = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: create_model("botnet55"), "unknown model 'botnet55'; did you mean botnet50"),
        (lambda: create_model("botnet50", drop_pth=0.1), "unknown option 'drop_pth'; did you mean drop_path"),
        (lambda: create_model("botnet50", num_classes=0), "num_classes must be at least 1"),
        (lambda: create_model("botnet50", image_size=0), "image_size must be at least 1"),
        (lambda: create_model("botnet50", drop_path=1.5), "drop_path is 1.5; expected 0 or more, and less than 1"),
        (lambda: create_model("botnet50", frozen_stages=6), "frozen_stages is 6; expected from 0 to 5"),
        (lambda: create_model("botnet50", normalization="bach"), "did you mean batch"),
        (lambda: create_backbone("botnet50", dropout=0.1), "a backbone does not have"),
        (lambda: create_model("botnet_mini")(torch.zeros(3, 48, 48)), "images must be"),
        (
            lambda: create_backbone("botnet_mini")(torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 4)),
            "padding_mask has shape",
        ),
        (lambda: create_backbone("botnet_mini")(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8)), "expected bool"),
        (lambda: create_model("botnet50", image_size=[48, 48, 3]), "image_size must be"),
        (lambda: create_model("botnet50", image_size=True), "image_size must be"),
        (lambda: create_model("botnet50", image_size=torch.tensor(48.0)), "image_size must be"),
        (lambda: create_model("botnet50", image_size=10**9), "at most 65536"),
        (lambda: create_model("botnet50", num_classes=10**9), "num_classes must be at least 1 and whole, and at most"),
        (lambda: create_model("botnet50", in_chans=0), "in_chans must be at least 1"),
        (lambda: create_model("botnet_mini").train().fold(), "call .eval"),
        (lambda: create_model("botnet50", image_size=48.0), "image_size must be"),
        (lambda: create_model("botnet50", num_classes=2.5), "whole"),
        (lambda: create_model("resnet50", position="relativ"), "did you mean relative"),
        (lambda: create_model("botnet50", backend="tild"), "did you mean tiled"),
        (lambda: create_model("botnet50", position="none", backend="tiled"), "runs as 'sdpa'"),
    ],
)
def test_bad_arguments_are_named_with_what_to_do(call, words):
    with torch.device("meta"), pytest.raises(InputError, match=words):
        call()


HALF = ["resnet50_half", "botnet50_half", "botnet_s1_50_half"]


@pytest.mark.parametrize("name", HALF)
def test_the_half_wide_rows_have_the_layers_of_the_network_that_they_are_for(name):
    with torch.device("meta"):
        model = create_model(name)
    assert model.channels == {"c2": 128, "c3": 256, "c4": 512, "c5": 1024}
    assert model.conv1.weight.shape == (64, 3, 7, 7)
    assert model.layer1[0].conv1.weight.shape == (32, 64, 1, 1)
    for number, stage in enumerate([model.layer1, model.layer2, model.layer3, model.layer4]):
        stride = {"c5": model.row.c5_stride}.get(f"c{number + 2}", 2 if number else 1)
        first = stage[0]
        assert first.downsample[0].stride == (stride, stride)
        if isinstance(first.conv2, MHSA2d):  # the paper's block: attention, then the pool
            assert first.conv1.stride == (1, 1)
            assert first.conv2.pool == (stride == 2)
        else:
            assert first.conv1.stride == (stride, stride)
            assert first.conv2.stride == (1, 1)


def test_a_row_of_caffe_is_the_same_fields():
    """Strides and pool as in Caffe, on a full-width network: what torchvision's has, where sizes are even."""
    torch.manual_seed(0)
    caffe = Row((1, 1, 1, 1), image_size=64, stride_in="1x1", pool_padding="after")
    options = make_options({"zero_gamma": False})
    ours = Classifier(caffe, (64, 64), options, 5).eval()
    theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], 5).eval()
    theirs.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", HALF)
def test_every_size_of_image_has_maps_of_ceil_size_over_stride(name):
    row = replace(ROWS[name], blocks=(1, 1, 1, 1))
    sides = [*range(1, 12), 31, 32, 33, 34, 63, 64, 65, 223, 226]
    with torch.device("meta"):
        backbone = Backbone(row, (32, 32), make_options({})).eval()
        for height, width in zip(sides, reversed(sides), strict=True):
            maps = backbone(torch.empty(1, 3, height, width), torch.zeros(1, height, width, dtype=torch.bool))
            for stage, feature_map in maps.items():
                stride = backbone.strides[stage]
                assert feature_map.shape[2:] == (-(-height // stride), -(-width // stride)), (height, width, stage)


def test_a_pool_padded_after_the_map_looks_at_the_same_cells_whatever_the_size():
    pool = create_backbone("resnet50_half", 32).maxpool
    cells = torch.randn(1, 1, 9, 9)
    windows = torch.tensor([[cells[0, 0, y : y + 3, x : x + 3].max() for x in range(0, 9, 2)] for y in range(0, 9, 2)])
    assert torch.equal(pool(cells)[0, 0], windows)
    assert torch.equal(pool(cells[..., :8, :8]), nn.functional.max_pool2d(cells[..., :8, :8], 3, 2, ceil_mode=True))


def test_the_spatial_operation_of_a_block_can_be_exchanged():
    """For a layer that knows no padding, as the benchmarks and people's ablations do."""
    model = create_model("botnet_nano", num_classes=3, image_size=64).eval()
    model.layer4[-1].conv2 = nn.Sequential(nn.Identity())
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_hook_of_a_stage_sees_every_call(masked, gradient_checkpointing):
    """Also where its blocks get a mask, or are computed again in the backward pass: as libraries of saliency expect."""
    backbone = create_backbone("botnet_nano", gradient_checkpointing=gradient_checkpointing).train()
    seen = []
    backbone.layer4.register_forward_hook(lambda stage, inputs, output: seen.append(output))
    images = torch.rand(2, 3, 64, 64)
    mask = torch.zeros(2, 64, 64, dtype=torch.bool) if masked else None
    maps = backbone(images, mask)
    assert len(seen) == 1
    assert seen[0] is maps["c5"]


def test_a_compiled_stage_takes_a_mask():
    backbone = create_backbone("botnet_nano").eval()
    images, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[1, 32:] = True
    expected = backbone(images, mask)["c5"]
    backbone.layer4 = torch.compile(backbone.layer4, backend="eager")
    torch.testing.assert_close(backbone(images, mask)["c5"], expected)


@pytest.mark.parametrize("name", ["resnet_nano", "botnet_nano", "resnet50_nl"])
@pytest.mark.parametrize("zero_gamma", [True, False])
def test_every_parameter_learns_where_batchnorm_is_frozen(name, zero_gamma):
    """A branch whose last BatchNorm is frozen at gamma 0 would never do anything. The layer before it is 0 at first."""
    torch.manual_seed(0)
    model = create_model(name, 3, 64, normalization="frozen", zero_gamma=zero_gamma).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    images = torch.randn(2, 3, 64, 64)
    for _ in range(2):
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()
    still = [name for name, parameter in model.named_parameters() if not parameter.grad.abs().sum()]
    assert still == []


@pytest.mark.parametrize("name", ["botnet50", "resnet50_nl", "resnet50_bot_c4"])
def test_random_blocks_start_as_the_identity_where_batchnorm_is_frozen_too(name):
    """No BatchNorm is left that would bring a sum of many random branches to a size."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert create_model(name, 10, 64, normalization="frozen")(images).std() < 2
        frozen, trained = (create_backbone(name, 64, normalization=kind).eval() for kind in ("frozen", "batch"))
        last = re.compile(r"\.(conv3|bn3|out|bn)\.")  # of a branch
        state = {name: tensor for name, tensor in trained.state_dict().items() if not last.search(name)}
        frozen.load_state_dict(state, strict=False)
        torch.testing.assert_close(frozen(images), trained(images))


class Untouched(nn.Module):
    """As people put modules around a block."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: torch.Tensor, padding_mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.inside(x, padding_mask)


@pytest.mark.parametrize("wrap", [checkpoint_wrapper, Untouched, torch.jit.script])
@pytest.mark.parametrize("of", ["block", "stage"])
def test_wrapped_blocks_and_stages_get_the_mask(wrap, of):
    torch.manual_seed(0)
    model = create_backbone("botnet_nano", image_size=64, zero_gamma=False).eval()
    images, mask = torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[1, 32:] = True
    expected = model(images, mask)["c5"]
    assert not torch.allclose(expected, model(images)["c5"], atol=1e-3)
    if of == "stage":
        model.layer4 = wrap(model.layer4)
    else:
        model.layer4 = Stage(*map(wrap, model.layer4))
    torch.testing.assert_close(model(images, mask)["c5"], expected)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 48, 48, dtype=torch.uint8), np.zeros((1, 3, 48, 48)), [1]])
def test_what_is_no_tensor_of_floats_is_said(images):
    with pytest.raises(InputError, match=r"images are .*; the network takes a tensor of floats: model\(model\.prepr"):
        create_model("botnet_nano", 10, 48)(images)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("exchanged", ["block", "stage"])
def test_what_somebody_has_put_in_place_of_a_block_takes_a_map_alone(checkpointing, exchanged):
    model = create_backbone("botnet_nano", image_size=48, gradient_checkpointing=checkpointing).train()
    other = nn.Conv2d(model.channels["c2"], model.channels["c3"], 1, model.strides["c3"] // model.strides["c2"])
    if exchanged == "block":
        model.layer2[0] = nn.Sequential(other)
    else:
        model.layer2 = other
    mask = torch.zeros(2, 48, 48, dtype=torch.bool)
    for given in ((), (mask,)):
        maps = model(torch.randn(2, 3, 48, 48), *given)
        maps["c5"].sum().backward()
        assert maps["c3"].shape == (2, model.channels["c3"], *(2 * [48 // model.strides["c3"]]))
