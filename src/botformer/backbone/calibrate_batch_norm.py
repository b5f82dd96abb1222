"""BatchNorm whose variances were lost, given statistics again: measured on images, without changing the function.

BatchNorm in evaluation mode is an affine map of each channel, a x + c. Weights that come folded have only a and c; any
running mean m and variance v do, with weight = a sqrt(v + eps) and bias = a m + c. In training mode the batch's own m
and v stand in their place, so that there only the true ones give the same function: those of the layer's input.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.backbone.fold_batchnorm import scale_and_shift
from botformer.backbone.resnet import Stages


class _Statistics:
    """Mean and variance (C,) of values that come in parts; in float64, on the CPU."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(2, channels, dtype=torch.float64)
        """`squares`: the sum of the squared distances from the mean."""

    def add(self, count: int, mean: Tensor, variance: Tensor) -> None:
        distance, total = mean.cpu().double() - self.mean, self.count + count
        self.squares += variance.cpu().double() * count + distance**2 * (self.count * count / total)
        self.mean += distance * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        return self.squares / self.count


@torch.no_grad()
def calibrate_batch_norm(stages: Stages, batches: Iterable[tuple[Tensor, Tensor | None]]) -> int:
    """Give every BatchNorm of `stages` the statistics of its input, in place; returns how many images they are of.

    In evaluation mode the function stays what it is, and in training mode it is nearly the same.

    Args:
        batches: normalised images (B, C, h, w), and the mask (B, h, w) of the pixels that pad them, or None. Padding is
            left out of the statistics.
    """
    norms: dict[str, Any] = {name: m for name, m in stages.named_modules() if scale_and_shift(m) is not None}
    statistics = {name: _Statistics(len(norm.running_mean)) for name, norm in norms.items()}
    inside: Tensor | None = None  # (B, 1, h, w), 1 where the images that are running are not padding

    def measure(name: str, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].permute(0, 2, 3, 1).flatten(0, 2)  # (B h w, C)
        if inside is not None:
            values = values[F.interpolate(inside, inputs[0].shape[2:]).flatten() > 0]
        variance, mean = torch.var_mean(values.float(), 0, correction=0)
        statistics[name].add(len(values), mean, variance)

    handles = [norm.register_forward_pre_hook(partial(measure, name)) for name, norm in norms.items()]
    training, images_seen = stages.training, 0
    stages.eval()
    try:
        for images, padding_mask in batches:
            inside = None if padding_mask is None else (~padding_mask[:, None]).float()
            stages.stages(images, padding_mask)
            images_seen += len(images)
    finally:
        for handle in handles:
            handle.remove()
        stages.train(training)
    for name, norm in norms.items():
        if statistics[name].count:
            _take(norm, statistics[name])
    return images_seen


def _take(norm: Any, measured: _Statistics) -> None:
    found = scale_and_shift(norm)
    assert found is not None
    scale, shift = (each.cpu().double() for each in found)
    norm.weight.copy_(scale * (measured.variance + norm.eps).sqrt())
    norm.bias.copy_(scale * measured.mean + shift)
    norm.running_mean.copy_(measured.mean)
    norm.running_var.copy_(measured.variance)
