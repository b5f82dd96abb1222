"""BatchNorm over the batches of all processes, on CPUs too: torch.nn.SyncBatchNorm computes on GPUs alone."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise(network: nn.Module, device: torch.device) -> None:
    """Have every BatchNorm of `network`, in place, take its statistics over all processes. Names and values of its
    tensors stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                setattr(module, name, _on_cpu(child))


def is_synchronised(norm: nn.Module) -> bool:
    """Whether it takes its statistics over all processes, where there are several."""
    return isinstance(norm, nn.SyncBatchNorm | CPUSyncBatchNorm)


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """(B, C, ...) -> the same, normalised by mean and variance over the values of all processes. Each may have another
    number of them, or none at all, but all must take part.

    No torch.nn.SyncBatchNorm, which DistributedDataParallel accepts on GPUs alone.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (B, C, ...), got {input.ndim} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        y, mean, variance, count = _Normalized.apply(input, self.weight, self.bias, self.eps)  # pyright: ignore
        if self.running_mean is not None:
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None, "a BatchNorm with cumulative statistics cannot be synchronised"
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
                unbiased = variance * (count / (count - 1).clamp(min=1))
                self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return y


class _Normalized(torch.autograd.Function):
    """What torch.nn.SyncBatchNorm computes on a GPU; all sums in float64, as PyTorch's BatchNorm has them on a CPU."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns y, and over all processes mean (C,), biased variance (C,) and how many values a channel has, ()."""
        assert not (weight is None) ^ (bias is None)
        here = x.numel() // x.shape[1]
        moments = x.new_zeros(2, x.shape[1], dtype=torch.float64)
        if here:
            variance, mean = torch.var_mean(x.double(), _all_but_channels(x), correction=0)
            moments = here * torch.stack([mean, variance + mean.square()])
        sums = _sum(torch.cat([moments.flatten(), moments.new_tensor([here])]))
        count = sums[-1]
        mean, square = (sums[:-1] / count.clamp(min=1)).unflatten(0, (2, -1))
        variance = (square - mean.square()).clamp(min=0)
        dtype = _exact(x).dtype
        y = F.batch_norm(x, mean.to(dtype), variance.to(dtype), weight, bias, training=False, eps=epsilon)
        ctx.save_for_backward(x, weight, mean.to(dtype), (variance + epsilon).rsqrt().to(dtype), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, mean, inverse_deviation, count = ctx.saved_tensors
        dy, dims = _exact(gradients[0]), _all_but_channels(x)
        shape = [1, -1] + [1] * (x.ndim - 2)
        normalized = (_exact(x) - mean.view(shape)) * inverse_deviation.view(shape)
        own = torch.stack([part.sum(dims, dtype=torch.float64) for part in (dy, dy * normalized)])
        of_dy, of_product = (_sum(own) / count.clamp(min=1)).to(dy)
        scale = inverse_deviation if weight is None else inverse_deviation * weight
        dx = (dy - of_dy.view(shape) - normalized * of_product.view(shape)) * scale.view(shape)
        if weight is None:
            return dx.to(x), None, None, None
        return dx.to(x), own[1].to(weight), own[0].to(weight), None


def _sum(values: Tensor) -> Tensor:
    """Over all processes, in float64."""
    total = values.to(torch.float64, copy=True)
    dist.all_reduce(total)
    return total


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


def _on_cpu(norm: _BatchNorm) -> CPUSyncBatchNorm:
    """The same parameters and buffers in another module."""
    synchronised = CPUSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, parameter in norm.named_parameters(recurse=False):
        setattr(synchronised, name, parameter)
    for name, buffer in norm.named_buffers(recurse=False):
        setattr(synchronised, name, buffer)
    return synchronised.train(norm.training)
