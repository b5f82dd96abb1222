"""A network's modules for one caller alone, with the weights that all share."""

from copy import deepcopy
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def own_copy(model: ModuleT, device: torch.device | None = None) -> ModuleT:
    """Hooks on it see this caller's images and no other thread's, and its mode is its own.

    It takes no memory worth mentioning, except on another `device` than the model's.
    """
    shared = list(chain(model.parameters(), model.buffers()))
    if device is not None and any(tensor.device != device for tensor in shared):
        return deepcopy(model).to(device)
    return deepcopy(model, {id(tensor): tensor for tensor in shared})
