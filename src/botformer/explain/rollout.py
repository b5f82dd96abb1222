"""Attention rollout (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers"), after convolutions."""

import torch
from torch import Tensor

from botformer.backbone.attention_maps import pass_back
from botformer.explain.forward_pass import CellMap, Network, c5_stride, cell_of, image_cells, layers_of, stride_of


def rollout(model: Network, pixels: Tensor, query_yx: tuple[float, float] | None = None) -> CellMap:
    """How much each cell contributes to the last map, through all attention layers and the shortcuts around them.

    A layer mixes positions by (A + I) / 2: A its attention matrix, heads averaged, I its shortcut. The layers' product
    is applied to the positions of c5 that are read, from the last layer to the first: memory is O(HW). Convolutions
    pass every cell on in its place; where a map is halved (by the average pool after the attention of a block of stride
    2 and the stride of its shortcut) a cell is read from the up to four that it covers, in equal parts.

    Args:
        model: a classifier or a detector, in any mode and on any device; nothing of it is changed.
        pixels: (C, h, w) uint8 or floats in 0..1, as the network sees it (see `see`).
        query_yx: the position of c5 that is read, in pixels of `pixels`; None: all of them equally, as the average pool
            of a classifier does. Whatever the class: rollout knows none.

    Returns:
        (H, W), summing to 1, on the map of the first attention layer.

    Raises:
        InputError: no attention layers, a query outside the image, or an image that does not fit the network.
    """
    layers = layers_of(model, pixels)
    stride = c5_stride(model)
    weights = torch.zeros(image_cells(pixels, stride), dtype=torch.float64, device=layers[0].x.device)
    if query_yx is None:
        weights += 1 / weights.numel()
    else:
        weights[cell_of(pixels, stride, query_yx)] = 1
    for layer in reversed(layers):
        cells = image_cells(pixels, stride_of(layer))
        weights = _spread(weights, cells, stride // stride_of(layer))
        stride = stride_of(layer)
        weights = (weights + pass_back(layer, weights, cells).double()) / 2
    return CellMap((weights / weights.sum()).cpu().numpy(), stride)


def _spread(weights: Tensor, cells: tuple[int, int], factor: int) -> Tensor:
    """(H, W) -> a finer map of `cells`: each weight in equal parts on the cells it covers, `factor` a side at most."""
    parts = weights
    for axis, (coarse, fine) in enumerate(zip(weights.shape, cells, strict=True)):
        place = torch.arange(fine, device=weights.device) // factor
        covered = torch.bincount(place, minlength=coarse).to(weights.dtype)
        shape = (-1, 1) if axis == 0 else (1, -1)
        parts = (parts / covered.view(shape)).index_select(axis, place)
    return parts
