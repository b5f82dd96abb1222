"""A network for inference: no BatchNorm, weights frozen, memory laid out for it."""

import copy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from botformer.errors import InputError


@runtime_checkable
class Foldable(Protocol):
    """A network that knows how to fold its own normalisations."""

    def fold(self) -> None: ...


def optimize(model: nn.Module, compile: bool = False) -> Any:
    """A copy of `model` for inference that computes the same function.

    Every BatchNorm is folded into the layer before it, exactly (the one after the attention into the value
    projection), parameters are frozen and laid out channels_last. The model that was given is left alone.

    Args:
        model: a classifier or a backbone of ours.
        compile: also compile with frozen weights (`torch.compile`); the first call of a new shape takes long, and on a
            CPU it needs a C++ compiler.

    Raises:
        InputError: the model does not know how to fold itself.
    """
    if not isinstance(model, Foldable):
        raise InputError(f"optimize takes a classifier or a backbone of botformer, got {type(model).__name__}")
    optimized = copy.deepcopy(model).eval().requires_grad_(False)
    assert isinstance(optimized, Foldable)
    optimized.fold()
    optimized = optimized.to(memory_format=torch.channels_last)
    return torch.compile(optimized, options={"freezing": True}) if compile else optimized
