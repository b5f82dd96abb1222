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


@torch.no_grad()
def fold(stages: nn.Module) -> None:
    """Fold every BatchNorm of a network, in place. It must be in evaluation mode and cannot be trained afterwards."""
    assert not stages.training, "statistics still move in training mode"
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
    scale, shift = _affine(norm)
    if isinstance(layer, MHSA2d):
        layer.qkv = _scaled(layer.qkv, *_on_values(layer, scale, shift))
    else:
        setattr(parent, layer_name, _scaled(layer, scale, shift))
    setattr(parent, norm_name, nn.Identity())


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a normalisation in evaluation mode."""
    assert isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)), type(norm)
    mean, variance, weight, bias = norm.running_mean, norm.running_var, norm.weight, norm.bias
    assert isinstance(mean, Tensor)
    assert isinstance(variance, Tensor)
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    scale = weight * (variance + float(norm.eps)).rsqrt()
    return scale, bias - mean * scale


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
