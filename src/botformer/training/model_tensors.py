"""A model's weights as named tensors, without the names that wrappers add."""

import torch
from torch import Tensor, nn

from botformer.errors import InputError

TensorSets = dict[str, dict[str, Tensor]]
"""What a checkpoint holds: "model", "ema" if there is one, and "optimizer", each as named tensors."""

COMPILED = "_orig_mod."
"""What `torch.compile(module)` puts in front of the names inside the module."""


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of `model` under its plain names. The tensors share memory with the model."""
    return {name.replace(COMPILED, ""): tensor for name, tensor in model.state_dict().items()}


@torch.no_grad()
def load_model_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy `tensors` into `model`. Raises `InputError` unless names and shapes are the same."""
    own = model_tensors(model)
    missing, foreign = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or foreign:
        raise InputError(f"other weights than this model's: missing {_some(missing)}, unknown {_some(foreign)}")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            found, expected = tuple(tensors[name].shape), tuple(tensor.shape)
            raise InputError(f"{name!r} has shape {found}; this model has {expected}")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


@torch.no_grad()
def all_finite(model: nn.Module) -> bool:
    """Whether the model holds no infinity and no NaN."""
    checks = [t.isfinite().all() for t in model.state_dict().values() if t.is_floating_point()]
    return bool(torch.stack(checks).all())


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
