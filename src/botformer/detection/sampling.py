"""Which proposals the region branches learn from."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from botformer.detection.matching import match
from botformer.detection.targets import Objects
from botformer.recipes.detector import Settings


@dataclass(frozen=True)
class Sample:
    """k regions of one picture."""

    regions_xyxy: Tensor
    """(k, 4)."""
    labels: Tensor
    """(k,) int64, 0 for background."""
    owner: Tensor
    """(k,) int64: the object a region belongs to; 0 for background."""

    def objects_only(self) -> "Sample":
        """Without the background."""
        chosen = self.labels > 0
        return Sample(self.regions_xyxy[chosen], self.labels[chosen], self.owner[chosen])


@torch.no_grad()
def sample_regions(proposals: list[Tensor], objects: list[Objects], settings: Settings) -> list[Sample]:
    """Proposals (n, 4) an image, and the objects' own boxes with them -> a `Sample` an image."""
    sampler = BalancedPositiveNegativeSampler(settings.roi_samples, settings.roi_positive_share)
    samples = []
    for boxes, picture in zip(proposals, objects, strict=True):
        regions = torch.cat([boxes, picture.boxes_xyxy])
        iou = settings.roi_positive_iou
        owner = match(regions, picture.boxes_xyxy, iou, iou, rescue=False)
        labels = torch.zeros_like(owner)
        labels[owner >= 0] = picture.labels[owner[owner >= 0]]
        ([positive], [negative]) = sampler([labels])
        chosen = torch.where(positive.bool() | negative.bool())[0]
        samples.append(Sample(regions[chosen], labels[chosen], owner[chosen].clamp(min=0)))
    return samples
