"""Attention computes in the dtype of its inputs, whatever autocast is around it."""

from contextlib import AbstractContextManager, nullcontext

import torch


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Nothing inside is cast. (Meta tensors have no autocast.)"""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
