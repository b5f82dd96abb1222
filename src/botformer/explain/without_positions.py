"""What a classifier says with its positions and without."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.resnet import Classifier
from botformer.errors import InputError
from botformer.explain.forward_pass import evaluation_mode


@dataclass(frozen=True)
class PositionEffect:
    """Probabilities of all classes."""

    with_positions: np.ndarray
    """(classes,)."""
    without_positions: np.ndarray
    """(classes,): every position table is zero, so that the position term adds nothing to any logit."""


def without_positions(model: Classifier, pixels: Tensor) -> PositionEffect:
    """The same image with the position tables as they are, and with zeros in a copy of the network.

    Attention by relative positions alone ("position_only") then looks everywhere alike.

    Args:
        model: a classifier, in any mode and on any device; zeros stand in a copy.
        pixels: (C, h, w) uint8 or floats in 0..1, as the network sees it (see `see`).

    Raises:
        InputError: the network has no position tables, or the image does not fit it.
    """
    if not has_positions(model):
        raise InputError("the network has no position tables: nothing would change without them")
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for module in zeroed.modules():
            for table in module.position_tables().values() if isinstance(module, MHSA2d) else ():
                table.zero_()
    return PositionEffect(probabilities(model, pixels), probabilities(zeroed, pixels))


def has_positions(model: torch.nn.Module) -> bool:
    """Whether an attention layer has position tables."""
    return any(isinstance(module, MHSA2d) and module.position_tables() for module in model.modules())


def probabilities(model: Classifier, pixels: Tensor) -> np.ndarray:
    """(classes,) of one image (C, h, w), uint8 or floats in 0..1."""
    with evaluation_mode(model):
        logits = model(model.preprocess(pixels.to(next(model.parameters()).device)[None]))[0]
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(0).cpu().numpy()
