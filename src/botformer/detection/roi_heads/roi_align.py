"""RoIs of the pyramid as maps of one size."""

from typing import Protocol

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from botformer.detection.float_types import at_least_float32
from botformer.recipes.detector_settings import Settings


class RoIPooler(Protocol):
    """Pyramid, boxes (n_i, 4) xyxy per image and a side in cells -> (sum n_i, C, cells, cells)."""

    def __call__(self, pyramid: dict[str, Tensor], boxes_xyxy: list[Tensor], cells: int) -> Tensor: ...

    def levels(self, boxes_xyxy: Tensor, /) -> Tensor:
        """(n, 4) -> (n,) index of the level a box is read from."""
        ...


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
            pooled.append(roi_align(feature_map.to(dtype), rois[here].to(dtype), cells, stride, self.points))
        return torch.cat(pooled)[torch.cat(places).argsort()].to(maps[0].dtype)

    def levels(self, boxes_xyxy: Tensor) -> Tensor:
        """(n, 4) -> (n,) index of the level a box is read from."""
        size = ((boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])).clamp(min=0).sqrt()
        smallest = torch.tensor(self.strides[1:], device=size.device) * self.cells
        # The margin keeps a box of exactly 224 px on p4 whatever the root rounds to.
        return (size[:, None] * (1 + 1e-6) >= smallest).sum(1)


class AtlasRoIAlign:
    """The same numbers for exported graphs, without a branch or a shape that depends on the boxes.

    All levels lie on one map, the finest above the others; each with its edge repeated, because RoIAlign reads beyond
    the middle of the last cell. Boxes, which must lie within the canvas, move to the level that they are read from.
    """

    def __init__(self, of: MultiScaleRoIAlign) -> None:
        self.levels, self.points = of.levels, of.points
        self.strides = [float(stride) for stride in of.strides]

    def atlas(self, pyramid: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pyramid (B, C, H, W) per level -> one map and the corners of the levels on it, for the heads in its place."""
        maps = [F.pad(level, (1, 1, 1, 1), mode="replicate") for level in pyramid.values()]
        corners, left, top = [(1.0, 1.0)], 0, maps[0].shape[2]
        width = max(maps[0].shape[3], sum(level.shape[3] for level in maps[1:]))
        beneath = []
        for level in maps[1:]:
            corners.append((left + 1.0, top + 1.0))
            left += level.shape[3]
            beneath.append(F.pad(level, (0, 0, 0, maps[1].shape[2] - level.shape[2])))
        rows = [maps[0], torch.cat(beneath, 3)] if beneath else [maps[0]]
        atlas = torch.cat([F.pad(row, (0, width - row.shape[3])) for row in rows], 2)
        return {"atlas": atlas, "corners_xy": atlas.new_tensor(corners, dtype=at_least_float32(atlas))}

    def __call__(self, pyramid: dict[str, Tensor], boxes_xyxy: list[Tensor], cells: int) -> Tensor:
        atlas, corners = pyramid["atlas"], pyramid["corners_xy"]
        boxes = torch.cat(boxes_xyxy).to(corners.dtype)
        image = torch.cat([boxes.new_full((len(one), 1), float(i)) for i, one in enumerate(boxes_xyxy)])
        level = self.levels(boxes)
        stride = boxes.new_tensor(self.strides)[level][:, None]
        corner = corners[level].repeat(1, 2)
        rois = torch.cat([image, boxes / stride + corner], 1)
        return roi_align(atlas.to(corners.dtype), rois, cells, 1, self.points).to(atlas.dtype)


def roi_align(feature_map: Tensor, rois: Tensor, cells: int, stride: int, points: int) -> Tensor:
    """RoIAlign (Mask R-CNN, He et al. 2017, section 3): feature map (B, C, H, W) and RoIs (n, 5), the number of the
    image and xyxy in pixels -> (n, C, cells, cells).

    A cell is the mean of `points` x `points` bilinear samples. The middle of cell i of the map lies at (i + 1/2)
    strides, as it does for anchors and masks. NaN boxes read zeros.
    """
    if feature_map.device.type != "cpu" or torch.compiler.is_exporting():  # other runtimes have an operator for it
        return torchvision.ops.roi_align(feature_map, rois, cells, 1 / stride, points, aligned=True)
    # torchvision's operator visits channel after channel on CPUs, on one thread in its backward pass. A cell is a sum
    # of weighted rows of the map (B H W, C), which is what a bag of embeddings is, on all threads.
    batch, channels, height, width = feature_map.shape
    left, top, right, bottom = (rois[:, 1:] / stride - 0.5).unbind(1)
    y, y_weight = _samples(top, bottom, cells, points, height)
    x, x_weight = _samples(left, right, cells, points, width)
    image = rois[:, 0].to(torch.int32)[:, None, None, None, None]
    row = (image * height + y[:, :, None, :, None]) * width + x[:, None, :, None, :]
    weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
    bags = (len(rois) * cells**2, (2 * points) ** 2)
    rows = feature_map.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    sums = F.embedding_bag(row.reshape(bags), rows, mode="sum", per_sample_weights=weight.reshape(bags))
    return sums.reshape(len(rois), cells, cells, channels).permute(0, 3, 1, 2)


def _samples(low: Tensor, high: Tensor, cells: int, points: int, length: int) -> tuple[Tensor, Tensor]:
    """Along one axis: ends of RoIs (n,), in cells of a map of this length -> what each of their cells reads: (n, cells,
    2 points) int32 places and their weights, two for each sample."""
    sample = torch.arange(cells * points, dtype=low.dtype, device=low.device).add_(0.5) / points
    at = low[:, None] + (high - low)[:, None] / cells * sample
    inside = (at >= -1) & (at <= length)
    at = torch.where(inside, at, 0).clamp(0, length - 1)
    before = at.floor()
    after = (before + 1).clamp(max=length - 1)
    places = torch.stack([before, after], -1).to(torch.int32)
    weights = torch.stack([before + 1 - at, at - before], -1) * inside[..., None] / points
    return places.reshape(len(low), cells, 2 * points), weights.reshape(len(low), cells, 2 * points)
