"""Optimise a network for inference: BatchNorm folded, weights frozen, channels_last."""

import copy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from botformer.errors import InputError


@runtime_checkable
class Foldable(Protocol):
    """A network that can fold its own BatchNorms."""

    def fold(self) -> None: ...


def optimize(model: nn.Module, compile: bool = False, dtype: torch.dtype | None = None) -> Any:
    """A copy of `model` for inference that computes the same function.

    Every BatchNorm is folded into the layer before it, exactly (the one after the attention into the value
    projection), parameters are frozen and stored channels_last. `model` itself is not changed.

    Args:
        model: a classifier or a backbone of botformer.
        compile: also compile with frozen weights (`torch.compile`); the first call with a new shape is slow, and on a
            CPU it needs a C++ compiler.
        dtype: what the network computes in, such as torch.bfloat16, which is fast where the processor has instructions
            for it (on x86-64: AVX512_BF16 or AMX) and slow elsewhere. BatchNorms are folded first; images and results
            keep the dtype of the images. By default the dtype of the model.

    Raises:
        InputError: the model cannot fold its BatchNorms.
    """
    if not isinstance(model, Foldable):
        raise InputError(
            f"optimize takes a classifier or a backbone of botformer, got {type(model).__name__}; of a detector give "
            "the backbone (detector.backbone = optimize(detector.backbone)), of a wrapper what it wraps"
        )
    optimized = copy.deepcopy(model).eval().requires_grad_(False)
    assert isinstance(optimized, Foldable)
    optimized.fold()
    optimized = optimized.to(memory_format=torch.channels_last)
    if dtype is not None:
        # The network casts its images itself; a hook leaves it what it is, with all that it says of itself.
        optimized = optimized.to(dtype)
        optimized.register_forward_hook(_in_dtype_of_images, with_kwargs=True)
    return torch.compile(optimized, options={"freezing": True}) if compile else optimized


def _in_dtype_of_images(
    network: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], result: Tensor | dict[str, Tensor]
) -> Tensor | dict[str, Tensor]:
    dtype = (args[0] if args else kwargs["images"]).dtype
    if isinstance(result, dict):
        return {name: feature.to(dtype) for name, feature in result.items()}
    return result.to(dtype)
