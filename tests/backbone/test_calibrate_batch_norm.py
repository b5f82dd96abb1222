"""BatchNorms that lost their variances get back what they had, in networks of which both is known."""

import copy

import pytest
import torch
from torch import nn

from botformer import create_backbone
from botformer.backbone.calibrate_batch_norm import calibrate_batch_norm

IMAGES = torch.randn(24, 3, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def norms(network):
    return {name: module for name, module in network.named_modules() if hasattr(module, "running_var")}


def trained(row="resnet_nano", **options):
    """A network with random scales and shifts, whose statistics are those of `IMAGES` as training mode has them."""
    torch.manual_seed(0)
    network = create_backbone(row, 48, **options).double()
    values = {}
    for norm in norms(network).values():
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        nn.init.normal_(norm.bias)
        norm.momentum = 1.0
        norm.register_forward_pre_hook(lambda norm, inputs: values.update({norm: inputs[0][:, 0].numel()}))
    with torch.no_grad():
        network.train()(IMAGES)
    for norm, count in values.items():
        norm.running_var *= (count - 1) / count  # PyTorch normalises by the one and keeps the other
        norm._forward_pre_hooks.clear()
    return network.eval()


def without_variances(network):
    lost = copy.deepcopy(network)
    with torch.no_grad():
        for norm in norms(lost).values():
            norm.weight *= (norm.running_var + norm.eps).rsqrt()
            norm.running_var.fill_(1 - norm.eps)
    return lost


def outputs(network, train=False):
    network = copy.deepcopy(network).train(train)
    with torch.no_grad():
        return network(IMAGES)["c5"]


def distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(("row", "batches"), [("resnet_nano", [24]), ("botnet_nano", [1, 7, 16])])
def test_the_function_stays_and_training_mode_is_what_it_was_before_the_variances_were_lost(row, batches):
    original = trained(row)
    lost = without_variances(original)
    torch.testing.assert_close(outputs(lost), outputs(original), rtol=1e-9, atol=1e-9)
    assert distance(outputs(lost, train=True), outputs(original, train=True)) > 0.3  # another function
    calibrated = copy.deepcopy(lost)
    parts = [(part, None) for part in IMAGES.split(batches)]
    assert calibrate_batch_norm(calibrated, parts) == 24
    torch.testing.assert_close(outputs(calibrated), outputs(original), rtol=1e-9, atol=1e-9)
    assert distance(outputs(calibrated, train=True), outputs(original, train=True)) < 1e-5
    assert distance(outputs(calibrated, train=True), outputs(calibrated)) < 1e-5
    for name, norm in norms(calibrated).items():
        torch.testing.assert_close(norm.weight, norms(original)[name].weight, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.running_mean, norms(original)[name].running_mean, rtol=1e-5, atol=1e-5)


def test_frozen_norms_take_the_statistics_too():
    original = trained()
    frozen = create_backbone("resnet_nano", 48, normalization="frozen").double().eval()
    frozen.load_state_dict(without_variances(original).state_dict(), strict=False)
    calibrate_batch_norm(frozen, [(IMAGES, None)])
    torch.testing.assert_close(outputs(frozen), outputs(original), rtol=1e-9, atol=1e-9)
    for name, norm in norms(frozen).items():
        torch.testing.assert_close(norm.running_var, norms(original)[name].running_var, rtol=1e-5, atol=1e-5)


def test_padding_is_left_out_of_the_statistics():
    backbone = trained()
    canvas, padding = torch.zeros(2, 3, 48, 64, dtype=torch.float64), torch.ones(2, 48, 64, dtype=torch.bool)
    for number, (height, width) in enumerate([(48, 33), (21, 64)]):
        canvas[number, :, :height, :width] = IMAGES[number, :, :height, :1].expand(-1, -1, width)
        padding[number, :height, :width] = False
    with torch.no_grad():
        cells = backbone.conv1(canvas)  # stride 2
    seen = torch.cat([cells[0, :, :24, :17].flatten(1), cells[1, :, :11, :32].flatten(1)], 1)
    before = {name: norm.running_mean.clone() for name, norm in norms(backbone).items()}
    calibrate_batch_norm(backbone, [(canvas, padding)])
    torch.testing.assert_close(backbone.bn1.running_mean, seen.mean(1))
    torch.testing.assert_close(backbone.bn1.running_var, seen.var(1, correction=0))
    assert all(not torch.equal(norm.running_mean, before[name]) for name, norm in norms(backbone).items())


def test_modes_and_hooks_are_left_as_they_were():
    backbone = trained(frozen_stages=2).train()
    modes = {name: module.training for name, module in backbone.named_modules()}
    calibrate_batch_norm(backbone, [(IMAGES, None)])
    assert {name: module.training for name, module in backbone.named_modules()} == modes
    assert not any(module._forward_hooks for module in backbone.modules())
