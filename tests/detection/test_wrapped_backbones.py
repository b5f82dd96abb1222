"""Backbones in the hands of others: compiled, wrapped, in another type, of other channels. The detections stay."""

import copy
import functools
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

import botformer
from botformer.backbone.mhsa import MHSA2d
from botformer.deploy import optimize
from botformer.detection import build_detector
from botformer.errors import InputError

from .scenes import SMALL, small_detector, two_scenes

SETTINGS = replace(SMALL, score_threshold=0.3)


@pytest.fixture(scope="module")
def detector():
    return small_detector(settings=SETTINGS).eval()


@pytest.fixture(scope="module")
def images():
    """One fills a quarter of its canvas: its detections depend on whether attention looks at the padding."""
    return [torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0)), two_scenes()[0][0]]


def around(backbone, detector):
    """A detector with the pyramid and heads of `detector`."""
    other = build_detector("mask_rcnn", backbone, 2, 64, SETTINGS).eval()
    own = {name: value for name, value in detector.state_dict().items() if not name.startswith("backbone.")}
    assert not other.load_state_dict(own, strict=False).unexpected_keys
    return other


def assert_same(found, expected, atol=0.0):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=100 * atol)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=atol)
    assert len(expected[0]["boxes"]) > 10


class Wrapper(nn.Module):
    """Somebody's own."""

    def __init__(self, network):
        super().__init__()
        self.network, self.channels, self.strides = network, network.channels, network.strides

    def forward(self, images):
        return self.network(images)


class OpenWrapper(Wrapper):
    def forward(self, *args, **kwargs):
        return self.network(*args, **kwargs)


def compiled(network):
    return torch.compile(network, backend="eager")


def with_forward(wrap):
    """The network with its `forward` replaced by a wrapper of it."""

    def replaced(network):
        other = copy.deepcopy(network)
        other.forward = wrap(other.forward)
        return other

    return replaced


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        nn.DataParallel,
        lambda network: compiled(nn.DataParallel(network)),
        torch.optim.swa_utils.AveragedModel,
        OpenWrapper,
        lambda network: copy.deepcopy(compiled(network)),
        with_forward(compiled),
        with_forward(lambda forward: functools.wraps(forward)(lambda *a, **k: forward(*a, **k))),
        with_forward(lambda forward: lambda *a, **k: forward(*a, **k)),
    ],
    ids=["compiled", "parallel", "both", "averaged", "own", "copied", "forward", "wraps", "closure"],
)
def test_a_wrapped_backbone_is_told_the_padding(wrap, detector, images):
    assert_same(around(wrap(copy.deepcopy(detector.backbone)).eval(), detector)(images), detector(images))


@pytest.mark.parametrize("wrap", [lambda n: n, nn.DataParallel, compiled])
def test_a_wrapper_that_would_lose_the_padding_mask_is_named(wrap, detector):
    with pytest.raises(InputError, match="Wrapper does not hand the padding mask on to the Backbone.*padding_mask=No"):
        around(wrap(Wrapper(detector.backbone)), detector)
    build_detector("mask_rcnn", wrap(Wrapper(detector.backbone)), 2, 64, replace(SETTINGS, padding_mask=False))


def test_a_compiled_detector_and_its_copy_find_the_same(detector, images):
    whole = copy.deepcopy(detector)
    whole.backbone.compile(backend="eager")
    assert_same(copy.deepcopy(whole)(images), detector(images))


@pytest.mark.parametrize("times", [1, 2])
def test_a_folded_backbone_finds_the_same(times, detector, images, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", options=None))
    backbone = detector.backbone
    for _ in range(times):
        backbone = optimize(backbone)
    assert_same(around(backbone, detector)(images), detector(images), atol=1e-5)


def test_a_backbone_in_bfloat16_says_what_it_is_and_is_told_the_padding(detector, images):
    small = optimize(detector.backbone, dtype=torch.bfloat16)
    assert (small.channels, small.strides) == (detector.backbone.channels, detector.backbone.strides)
    other, heard = around(small, detector), []
    for layer in other.modules():
        if isinstance(layer, MHSA2d):
            layer.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[1]))
    (found, *_) = other(images)
    assert heard
    assert all(mask is not None for mask in heard)
    assert {parameter.dtype for parameter in other.backbone.parameters()} == {torch.bfloat16}
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_detector_runs_in_the_type_of_its_weights_and_its_boxes_in_float32_or_more(kind, dtype, images):
    exact = small_detector(kind, settings=SETTINGS).eval()
    other = copy.deepcopy(exact).to(dtype)
    boxes = torch.float64 if dtype == torch.float64 else torch.float32
    (found, _), (expected, _) = other(images), exact(images)
    assert found["boxes"].dtype == found["scores"].dtype == boxes
    assert abs(found["scores"].max() - expected["scores"].max()) < 0.02
    train_images, targets = two_scenes()
    losses = []
    for model in (other, exact):
        torch.manual_seed(0)
        losses.append(model.train().losses(train_images[:1], targets[:1]))  # float16 is slow on a CPU
    sum(losses[0].values()).backward()
    for name, loss in losses[0].items():
        assert loss.dtype == boxes
        torch.testing.assert_close(loss.float(), losses[1][name], rtol=0.3, atol=0.03)


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_of_any_type_of_floats_are_taken(given, detector, images):
    rounded = [image.to(given) for image in images]
    assert_same(detector(rounded), detector([image.float() for image in rounded]))


def test_under_autocast_boxes_and_losses_are_float32(detector, images):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found, _) = detector(images)
        losses = small_detector().losses(*two_scenes())
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_multispectral_images(channels):
    settings = dict(fpn_channels=16, box_channels=32, mask_channels=16, mask_convolutions=1, rpn_post_nms_top_n=20)
    mean, std = [0.1 * c for c in range(channels)], [0.5] * channels
    own = botformer.create_detector(
        "mask_rcnn", "botnet_nano", 2, 64, in_chans=channels, mean=mean, std=std, **settings
    )
    peer = timm.create_model("resnet10t", features_only=True, in_chans=channels)
    other = botformer.create_detector("mask_rcnn", peer, 2, 64, mean=mean, std=std, **settings)
    exchanged = botformer.create_detector("mask_rcnn", "botnet_nano", 2, 64, **settings)
    exchanged.backbone.conv1 = nn.Conv2d(channels, 8, 3, 2, 1, bias=False)
    exchanged.mean, exchanged.std = mean, std
    image = torch.rand(channels, 50, 64)
    for model in (own, other, exchanged):
        seen = []
        model.backbone.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        assert len(model.eval()(model.preprocess([image]))) == 1
        expected = (image - torch.tensor(mean)[:, None, None]) / 0.5
        torch.testing.assert_close(seen[0][0, :, :50], expected)
        with pytest.raises(InputError, match=rf"image 0 must be a tensor \({channels}, height, width\)"):
            model([torch.rand(2, 50, 64)])
