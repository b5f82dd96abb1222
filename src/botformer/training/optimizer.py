"""The optimiser: which parameters move, which decay, and its state as named tensors."""

from collections.abc import Collection

import torch
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from botformer.errors import InputError
from botformer.recipes.schema import Optimizer

_SCALE = "lr_scale"
"""Of a group of parameters: its learning rate as a fraction of the optimiser's (timm's word)."""


def make_optimizer(
    task: nn.Module, no_weight_decay: set[str], settings: Optimizer, loaded: Collection[str] = ()
) -> torch.optim.Optimizer:
    """SGD (momentum 0.9, Nesterov's or plain) or AdamW over the parameters of `task` that need a gradient.

    Kernels decay: parameters of two dimensions or more whose name, relative to `task`, is not in `no_weight_decay`.
    Parameters whose name is in `loaded` learn at `loaded_rate` times the rate of the others, which stand first.
    """
    trainable = {name: p for name, p in task.named_parameters() if p.requires_grad}
    unknown = no_weight_decay - {name for name, _ in task.named_parameters()}
    assert not unknown, f"no_weight_decay names parameters that do not exist: {sorted(unknown)}"
    if not trainable:
        raise InputError("no parameter is left to train; lower model.frozen_stages")
    slower = set(loaded) if settings.loaded_rate != 1.0 else set()
    groups = []
    for names, scale in ((trainable.keys() - slower, 1.0), (trainable.keys() & slower, settings.loaded_rate)):
        parameters = {name: p for name, p in trainable.items() if name in names}
        kernels = [p for name, p in parameters.items() if p.ndim > 1 and name not in no_weight_decay]
        others = [p for name, p in parameters.items() if p.ndim <= 1 or name in no_weight_decay]
        groups += [
            {"params": some, "weight_decay": decay, _SCALE: scale}
            for some, decay in ((kernels, settings.weight_decay), (others, 0.0))
            if some
        ]
    return create_optimizer_v2(groups, opt=settings.name, lr=settings.learning_rate, momentum=0.9)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """`rate` is that of new parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[_SCALE]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers, as "<position of the parameter>.<name>". Its settings come from the recipe."""
    tensors = {}
    for position, memory in optimizer.state_dict()["state"].items():
        for name, value in memory.items():
            assert isinstance(value, Tensor), f"optimiser state {name!r} is not a tensor"
            tensors[f"{position}.{name}"] = value
    return tensors


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The reverse of `optimizer_tensors`. Raises `InputError` when the tensors belong to other parameters."""
    parameters = {str(n): p for n, p in enumerate(p for group in optimizer.param_groups for p in group["params"])}
    memory: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        position, _, name = key.partition(".")
        parameter = parameters.get(position)
        if parameter is None or (tensor.ndim > 0 and tensor.shape != parameter.shape):
            raise InputError(f"{key!r} of shape {tuple(tensor.shape)} belongs to no parameter of this model")
        if tensor.ndim > 0:  # in the memory layout of its parameter, as the optimiser itself keeps it
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        memory.setdefault(int(position), {})[name] = tensor
    if not memory:
        raise InputError("it holds no optimiser state")
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})
