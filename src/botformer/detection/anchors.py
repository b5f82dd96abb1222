"""Anchors: the boxes that the region proposal network starts from, on the grid of every level."""

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from botformer.detection.float_types import at_least_float32
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
        self.cells = [_cell(size, settings.anchor_ratios, stride) for size, stride in zip(sizes, strides, strict=True)]

    def __call__(self, maps: list[Tensor]) -> list[Tensor]:
        """For maps (B, C, H, W), one per level."""
        device, dtype = maps[0].device, at_least_float32(maps[0])
        # Made here: nothing that was computed must survive a move to another device or type, or from `meta`.
        self.generator.cell_anchors = [torch.tensor(cell, dtype=dtype, device=device) for cell in self.cells]
        steps = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
        return self.generator.grid_anchors([list(m.shape[2:]) for m in maps], steps)


def _cell(size: float, ratios: tuple[float, ...], stride: int) -> list[list[float]]:
    """The anchors of the first cell, (ratios, 4)."""
    half_sides = [(size / ratio**0.5 / 2, size * ratio**0.5 / 2) for ratio in ratios]
    middle = stride / 2
    return [[middle - width, middle - height, middle + width, middle + height] for width, height in half_sides]
