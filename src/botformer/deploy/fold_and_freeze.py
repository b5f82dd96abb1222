"""Optimise a network for inference: BatchNorm folded, weights frozen, channels_last."""

import copy
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from botformer.detection.rcnn import Detector
from botformer.errors import InputError


@runtime_checkable
class Foldable(Protocol):
    """A network that can fold its own BatchNorms."""

    def fold(self) -> None: ...


def optimize(model: nn.Module, compile: bool = False, dtype: torch.dtype | None = None) -> Any:
    """A copy of `model` for inference that computes the same function.

    Every BatchNorm of a classifier or backbone is folded into the layer before it, exactly (the one after the attention
    into the value projection), parameters are frozen and stored channels_last. `model` itself is not changed. Of a
    detector, the BatchNorms of its backbone are folded, if that is one of botformer; those of its heads are kept.

    Args:
        model: a classifier, a backbone or a detector of botformer.
        compile: also compile with frozen weights (`torch.compile`); the first call with a new shape is slow, and on a
            CPU it needs a C++ compiler. Of a detector, the backbone is.
        dtype: what the network computes in, such as torch.bfloat16, which is fast where the processor has instructions
            for it (on x86-64: AVX512_BF16 or AMX) and slow elsewhere. BatchNorms are folded first; images and results
            keep the dtype of the images; boxes and scores of a detector are float32. By default the dtype of the model.

    Raises:
        InputError: the model cannot fold its BatchNorms.
    """
    if not isinstance(model, Foldable):
        raise InputError(
            f"optimize takes a classifier, a backbone or a detector of botformer, got {type(model).__name__}; of a "
            "wrapper give what it wraps"
        )
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"dtype must be a floating-point type such as torch.bfloat16, got {dtype!r}")
    optimized = copy.deepcopy(model).eval().requires_grad_(False)
    assert isinstance(optimized, Foldable)
    optimized.fold()
    optimized = optimized.to(memory_format=torch.channels_last)
    if dtype is not None:
        optimized = optimized.to(dtype)
        if not isinstance(optimized, Detector):
            # The network casts its images itself; a hook leaves it what it is, with all that it says of itself.
            optimized.register_forward_hook(_in_dtype_of_images, with_kwargs=True)
    if not compile:
        return optimized
    if isinstance(optimized, Detector):
        optimized.backbone = _compiled(optimized.backbone)
        return optimized
    return _compiled(optimized)


def _compiled(network: nn.Module) -> Any:
    return torch.compile(network, options={"freezing": True})


def _in_dtype_of_images(
    network: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], result: Tensor | dict[str, Tensor]
) -> Tensor | dict[str, Tensor]:
    dtype = (args[0] if args else kwargs["images"]).dtype
    if isinstance(result, dict):
        return {name: feature.to(dtype) for name, feature in result.items()}
    return result.to(dtype)
