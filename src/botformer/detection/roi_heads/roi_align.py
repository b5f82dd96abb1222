"""RoIs of the pyramid as maps of one size."""

import torch
from torch import Tensor
from torchvision.ops import roi_align

from botformer.detection.float_types import at_least_float32
from botformer.recipes.detector_settings import Settings


class MultiScaleRoIAlign:
    """Pyramid (B, C, H, W) per level, boxes (n_i, 4) xyxy per image -> (sum n_i, C, cells, cells), by RoIAlign.

    RoIAlign computes in float32 or more; what it gives has the type of the pyramid.

    Every box is read from the coarsest level on which the root of its area still spans `roi_canonical_cells` cells,
    else from the finest; with strides 4, 8, 16, 32 this is the rule of the FPN paper.
    """

    def __init__(self, strides: list[int], settings: Settings) -> None:
        self.strides, self.cells, self.points = strides, settings.roi_canonical_cells, settings.roi_sampling_points

    def __call__(self, pyramid: dict[str, Tensor], boxes_xyxy: list[Tensor], cells: int) -> Tensor:
        maps = list(pyramid.values())
        image = [torch.full((len(boxes), 1), float(i), device=boxes.device) for i, boxes in enumerate(boxes_xyxy)]
        rois = torch.cat([torch.cat(image), torch.cat(boxes_xyxy)], 1)  # (n, 5): image, box
        level = self.levels(rois[:, 1:])
        dtype = at_least_float32(maps[0])
        places, pooled = [], []
        for index, (stride, feature_map) in enumerate(zip(self.strides, maps, strict=True)):
            here = torch.where(level == index)[0]
            places.append(here)
            # `aligned`: the middle of cell i lies at (i + 1/2) strides, as it does for anchors and masks.
            pooled.append(
                roi_align(feature_map.to(dtype), rois[here].to(dtype), cells, 1 / stride, self.points, aligned=True)
            )
        return torch.cat(pooled)[torch.cat(places).argsort()].to(maps[0].dtype)

    def levels(self, boxes_xyxy: Tensor) -> Tensor:
        """(n, 4) -> (n,) index of the level a box is read from."""
        size = ((boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])).clamp(min=0).sqrt()
        smallest = torch.tensor(self.strides[1:], device=size.device) * self.cells
        # The margin keeps a box of exactly 224 px on p4 whatever the root rounds to.
        return (size[:, None] * (1 + 1e-6) >= smallest).sum(1)
