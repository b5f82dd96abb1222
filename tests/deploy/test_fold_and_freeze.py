import pytest
import torch
from torch import nn

import botformer
from botformer.detection import build_detector
from botformer.errors import InputError
from tests.detection.scenes import SMALL

COMPILE = torch.compile


def trained(name, position="relative", **options):
    """A network whose BatchNorms have random affine maps and statistics."""
    torch.manual_seed(0)
    create = botformer.create_backbone if options.pop("backbone", False) else botformer.create_model
    model = create(name, position=position, **options).double()
    for module in model.modules():
        if hasattr(module, "running_var"):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize("position", ["relative", "absolute", "none", "position_only", "blog"])
def test_no_batch_norm_is_left_and_the_function_is_the_same(position):
    model = trained("botnet_mini", position)
    optimized = botformer.deploy.optimize(model)
    assert not any("norm" in type(module).__name__.lower() for module in optimized.modules())
    images = torch.randn(2, 3, 45, 37, dtype=torch.float64)
    torch.testing.assert_close(optimized(images), model(images))
    assert not any(parameter.requires_grad for parameter in optimized.parameters())


@pytest.mark.parametrize("name", ["botnet50", "botnet_t3", "resnet50_nl", "resnet50_bot_c4c5"])
def test_every_kind_of_block_folds_odd_maps_and_the_pool_too(name):
    model = trained(name, backbone=True)
    optimized = botformer.deploy.optimize(model)
    images = torch.randn(1, 3, 97, 65, dtype=torch.float64)
    for folded, original in zip(optimized(images).values(), model(images).values(), strict=True):
        torch.testing.assert_close(folded, original)


@pytest.mark.parametrize("side", [96, 288])
def test_a_folded_network_has_the_gradients_of_its_images(side):
    """As for saliency; on small maps attention is the definition, on larger ones a kernel."""
    model = trained("botnet_mini")
    folded = trained("botnet_mini")
    folded.fold()
    gradients = []
    for network in (model, folded, botformer.deploy.optimize(model)):
        images = torch.randn(1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        images.requires_grad_()
        gradients.append(torch.autograd.grad(network(images).square().sum(), images)[0])
    torch.testing.assert_close(gradients[1], gradients[0])
    torch.testing.assert_close(gradients[2], gradients[0])


@pytest.mark.parametrize("normalization", ["batch", "frozen"])
def test_every_kind_of_normalisation_folds(normalization):
    model = trained("botnet_mini", normalization=normalization)
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    torch.testing.assert_close(botformer.deploy.optimize(model)(images), model(images))


def test_the_model_that_was_given_is_left_alone():
    model = trained("botnet_mini").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    botformer.deploy.optimize(model)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("backbone", [False, True])
def test_a_network_in_bfloat16_takes_and_gives_float32_and_is_as_near_as_bfloat16_can_be(backbone):
    model = trained("botnet_mini", backbone=backbone)
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    optimized = botformer.deploy.optimize(model, dtype=torch.bfloat16)
    mine, exact = optimized(images.float()), model(images)
    pairs = zip(mine.values(), exact.values(), strict=True) if backbone else [(mine, exact)]
    assert {parameter.dtype for parameter in optimized.parameters()} == {torch.bfloat16}
    for one, other in pairs:
        assert one.dtype == torch.float32
        error = (one - other).norm() / other.norm()
        assert 1e-4 < error < 0.05  # rounded indeed, and by no more than layers of 2^-8 each


@pytest.mark.parametrize("again", [dict(), dict(dtype=torch.float64), dict(compile=True)])
def test_folding_twice_changes_nothing(again, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **_: COMPILE(model, backend="eager"))
    model, images = trained("botnet_nano"), torch.randn(2, 3, 48, 48, dtype=torch.float64)
    once = botformer.deploy.optimize(model, **again)
    torch.testing.assert_close(botformer.deploy.optimize(once, **again)(images), model(images))


def test_what_is_no_batch_norm_with_statistics_stays():
    model = trained("botnet_nano")
    model.bn1 = nn.GroupNorm(2, 8).double()
    model.layer1[0].bn1 = nn.Identity()
    model.layer2[0].bn1 = nn.BatchNorm2d(16, affine=False).double()
    model.layer3[0].bn2 = nn.BatchNorm2d(32, track_running_stats=False).double()
    images, optimized = torch.randn(2, 3, 48, 48, dtype=torch.float64), botformer.deploy.optimize(model.eval())
    torch.testing.assert_close(optimized(images), model(images))
    left = {name for name, module in optimized.named_modules() if "Norm" in type(module).__name__}
    assert left == {"bn1", "layer3.0.bn2"}


def test_another_type_of_floats_keeps_what_the_network_says_of_itself():
    backbone, images = trained("botnet_nano", backbone=True), torch.rand(1, 3, 48, 64)
    optimized = botformer.deploy.optimize(backbone, dtype=torch.bfloat16)
    assert (optimized.channels, optimized.strides) == (backbone.channels, backbone.strides)
    assert torch.equal(optimized.preprocess(images), backbone.preprocess(images))
    padding = torch.zeros(1, 48, 64, dtype=torch.bool)
    padding[:, :, 32:] = True
    without, told = optimized(images)["c5"], optimized(images=images, padding_mask=padding)["c5"]
    assert told.dtype == torch.float32
    assert not torch.equal(without, told)


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn"])
def test_a_detector_finds_the_same(kind, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **_: COMPILE(model, backend="eager"))
    detector = build_detector(kind, trained("botnet_mini", backbone=True), 2, 64, SMALL).double().eval()
    images = [torch.rand(3, 60, 64, dtype=torch.float64), torch.rand(3, 33, 47, dtype=torch.float64)]
    (first, second), third = detector(images), "masks" if kind == "mask_rcnn" else "keypoints"
    assert len(first["scores"])
    for compile in (False, True):
        optimized = botformer.deploy.optimize(detector, compile=compile)
        assert not any("Norm" in type(module).__name__ for module in optimized.backbone.modules())
        for found, exact in zip(optimized(images), (first, second), strict=True):
            assert found.keys() == exact.keys()
            for name in ("boxes", "scores", "labels"):
                torch.testing.assert_close(found[name], exact[name])
            if third == "keypoints":
                torch.testing.assert_close(found[third], exact[third])
            else:
                assert found[third] == exact[third]
    rough = botformer.deploy.optimize(detector, dtype=torch.bfloat16)([image.float() for image in images])
    assert {result["boxes"].dtype for result in rough} == {torch.float32}
    assert any("BatchNorm" in type(module).__name__ for module in detector.backbone.modules())


def test_other_models_are_refused():
    with pytest.raises(InputError, match="got Linear"):
        botformer.deploy.optimize(nn.Linear(2, 2))
