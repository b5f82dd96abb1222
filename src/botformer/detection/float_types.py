"""In which type of floats a detector computes: layers in that of their weights, boxes and scores in float32 or more."""

import torch
from torch import Tensor, nn


def weights_dtype(module: nn.Module) -> torch.dtype:
    """That of the floating-point parameters of a network; float32 if it has none."""
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)


def at_least_float32(x: Tensor) -> torch.dtype:
    """The type for boxes, scores and losses that come from `x`: float32, or float64 where that is what it has."""
    return torch.promote_types(x.dtype, torch.float32)
