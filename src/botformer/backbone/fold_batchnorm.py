"""BatchNorm folded into the layers before it: the same function in evaluation mode, without any BatchNorm.

BatchNorm in evaluation mode is an affine map of each channel. After a convolution it is folded into the weights. After
attention it is folded into the value projection, because the weights of a softmax sum to 1; an average pool in between
changes nothing about that.
"""

import copy

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from botformer.backbone.blocks import Bottleneck, NonLocal
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError


@torch.no_grad()
def fold(stages: nn.Module) -> None:
    """Fold every BatchNorm of a network, in place. It must be in evaluation mode and cannot be trained afterwards.

    What is no BatchNorm stays: a network that was folded before, or that has another normalisation, loses nothing.
    """
    if stages.training:
        raise InputError("statistics of BatchNorm still move in training mode, so it cannot be folded; call .eval()")
    _fold_pair(stages, "conv1", "bn1")
    for module in stages.modules():
        if isinstance(module, Bottleneck):
            for number in "123":
                _fold_pair(module, f"conv{number}", f"bn{number}")
            if module.downsample is not None:
                _fold_pair(module.downsample, "0", "1")
        if isinstance(module, NonLocal):
            _fold_pair(module, "out", "bn")


def _fold_pair(parent: nn.Module, layer_name: str, norm_name: str) -> None:
    layer, norm = getattr(parent, layer_name), getattr(parent, norm_name)
    affine = scale_and_shift(norm)
    if affine is None or not isinstance(layer, nn.Conv2d | MHSA2d):
        return
    scale, shift = affine
    if isinstance(layer, MHSA2d):
        layer.qkv = _scaled(layer.qkv, *_on_values(layer, scale, shift))
        _keep_input(parent)
    else:
        setattr(parent, layer_name, _scaled(layer, scale, shift))
    setattr(parent, norm_name, nn.Identity())


def _keep_input(block: nn.Module) -> None:
    """The activation now follows the attention itself, whose result fused kernels need for gradients."""
    if isinstance(block.act, nn.ReLU | nn.SiLU):
        block.act.inplace = False


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Scale and shift (C,) of a BatchNorm in evaluation mode; None of anything that has no fixed ones."""
    if not isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)):
        return None
    mean, variance, weight, bias = norm.running_mean, norm.running_var, norm.weight, norm.bias
    if mean is None or variance is None:  # track_running_stats=False: statistics of every batch
        return None
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    scale = (variance + float(norm.eps)).rsqrt()
    scale = scale * weight if isinstance(weight, Tensor) else scale
    shift = -mean * scale
    return scale, shift + bias if isinstance(bias, Tensor) else shift


def _on_values(layer: MHSA2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and shift for the fused projection: applied to the values, not to queries and keys."""
    others = layer.qkv.out_channels - len(scale)
    return torch.cat([scale.new_ones(others), scale]), torch.cat([shift.new_zeros(others), shift])


def _scaled(layer: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """A convolution followed by scale and shift as one convolution with a bias."""
    folded = copy.deepcopy(layer)
    folded.bias = nn.Parameter(torch.empty_like(shift))
    folded.weight.copy_(layer.weight * scale[:, None, None, None])
    folded.bias.copy_(shift if layer.bias is None else layer.bias * scale + shift)
    return folded.requires_grad_(False)
