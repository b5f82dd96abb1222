"""Boxes as offsets from reference boxes, the units in which a network regresses them (R-CNN, appendix C).

In the place of `BoxCoder` of `torchvision.models.detection._utils`, a private module: the same operations in the same
order on tensors of the same layout, so that the numbers are the same to the bit, without the reshaping around them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST_LOG = math.log(1000.0 / 16)
"""Of a change of size, so that exp() stays finite."""


@dataclass(frozen=True)
class BoxCoder:
    """Offsets (dx, dy, dw, dh): the shift of the centre in sizes of the reference box, and the logarithms of the ratios
    of width and height; each times its weight."""

    weights: tuple[float, float, float, float]

    def encode(self, boxes_xyxy: Tensor, references_xyxy: Tensor) -> Tensor:
        """(n, 4) boxes as offsets (n, 4) from references (n, 4)."""
        x, y, width, height = _centre_and_size(boxes_xyxy)
        from_x, from_y, from_width, from_height = _centre_and_size(references_xyxy)
        # As tensors: a weight is rounded to the boxes' precision before it multiplies, as torchvision's are.
        wx, wy, ww, wh = torch.as_tensor(self.weights, dtype=boxes_xyxy.dtype, device=boxes_xyxy.device)
        dx = wx * (x - from_x) / from_width
        dy = wy * (y - from_y) / from_height
        dw = ww * torch.log(width / from_width)
        dh = wh * torch.log(height / from_height)
        return torch.stack([dx, dy, dw, dh], 1)

    def decode(self, offsets: Tensor, references_xyxy: Tensor) -> Tensor:
        """Offsets (n, 4) from references (n, 4) -> boxes (n, 4) xyxy."""
        from_x, from_y, from_width, from_height = _centre_and_size(references_xyxy.to(offsets.dtype))
        wx, wy, ww, wh = self.weights
        dx, dy, dw, dh = offsets.unbind(1)
        x, y = dx / wx * from_width + from_x, dy / wy * from_height + from_y
        half_width = 0.5 * (torch.exp(torch.clamp(dw / ww, max=_LARGEST_LOG)) * from_width)
        half_height = 0.5 * (torch.exp(torch.clamp(dh / wh, max=_LARGEST_LOG)) * from_height)
        return torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)


def _centre_and_size(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n, 4) -> x, y, width, height, each (n,)."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height
