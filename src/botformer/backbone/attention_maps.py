"""The attention weights of one query position in every attention layer of a network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from botformer.backbone.mhsa import MHSA2d


@torch.no_grad()
def attention_maps(
    model: nn.Module, images: Tensor | Sequence[Tensor], query: tuple[float, float]
) -> list[tuple[str, Tensor]]:
    """Name and attention (B, heads, H, W) of each `MHSA2d`, in the order they run.

    Args:
        model: a module with such layers, called with `images`: (B, 3, h, w), or a detector's list.
        query: (y, x) of the query position as fractions of the image, padding included: (0.5, 0.5) is the centre.
    """
    maps: list[tuple[str, Tensor]] = []
    names = {module: name for name, module in model.named_modules() if isinstance(module, MHSA2d)}

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, MHSA2d)
        height, width = inputs[0].shape[2:]
        cell = (min(int(query[0] * height), height - 1), min(int(query[1] * width), width - 1))
        maps.append((names[layer], layer.attention_from(inputs[0], cell)))

    hooks = [layer.register_forward_pre_hook(record) for layer in names]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
