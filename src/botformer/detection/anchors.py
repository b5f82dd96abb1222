"""Anchors: the boxes that the region proposal network starts from, on the grid of every level."""

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from botformer.recipes.detector_settings import Settings


class Anchors:
    """Boxes xyxy in pixels of the canvas per level: `(H * W * ratios, 4)`, row by row, the ratios of a cell together.

    torchvision's generator lays them out. Its cells are replaced: it rounds anchors to whole pixels, which distorts
    small ones, and centres them on the corner of a cell instead of its middle.
    """

    def __init__(self, strides: list[int], settings: Settings) -> None:
        self.strides = strides
        sizes = settings.anchor_sizes or tuple(settings.anchor_scale * stride for stride in strides)
        self.generator = AnchorGenerator(tuple((size,) for size in sizes), (settings.anchor_ratios,) * len(sizes))
        self.generator.cell_anchors = [
            _cell(size, settings.anchor_ratios, stride) for size, stride in zip(sizes, strides, strict=True)
        ]

    def __call__(self, maps: list[Tensor]) -> list[Tensor]:
        """For maps (B, C, H, W), one per level."""
        device = maps[0].device
        self.generator.set_cell_anchors(torch.float32, device)
        steps = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
        return self.generator.grid_anchors([list(m.shape[2:]) for m in maps], steps)


def _cell(size: float, ratios: tuple[float, ...], stride: int) -> Tensor:
    """The anchors of the first cell, (ratios, 4)."""
    height = size * torch.tensor(ratios).sqrt()
    width = size**2 / height
    return torch.stack([-width, -height, width, height], 1) / 2 + stride / 2
