"""Which proposals the region branches learn from."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from botformer.detection.matcher import match
from botformer.detection.targets import Targets
from botformer.recipes.detector_settings import Settings


@dataclass(frozen=True)
class SampledProposals:
    """k regions of one image."""

    proposals_xyxy: Tensor
    """(k, 4)."""
    labels: Tensor
    """(k,) int64, 0 for background."""
    matched_idx: Tensor
    """(k,) int64: the object a region belongs to; 0 for background."""

    def foreground(self) -> "SampledProposals":
        """Without the background."""
        chosen = self.labels > 0
        return SampledProposals(self.proposals_xyxy[chosen], self.labels[chosen], self.matched_idx[chosen])


@torch.no_grad()
def sample_proposals(proposals: list[Tensor], targets: list[Targets], settings: Settings) -> list[SampledProposals]:
    """Proposals (n, 4) an image, and the objects' own boxes with them -> a `Sample` an image."""
    sampler = BalancedPositiveNegativeSampler(settings.roi_samples, settings.roi_positive_fraction)
    samples = []
    for boxes, image in zip(proposals, targets, strict=True):
        regions = torch.cat([boxes, image.boxes_xyxy])
        iou = settings.roi_positive_iou
        matched_idx = match(regions, image.boxes_xyxy, iou, iou, allow_low_quality_matches=False)
        labels = torch.zeros_like(matched_idx)
        labels[matched_idx >= 0] = image.labels[matched_idx[matched_idx >= 0]]
        ([positive], [negative]) = sampler([labels])
        chosen = torch.where(positive.bool() | negative.bool())[0]
        samples.append(SampledProposals(regions[chosen], labels[chosen], matched_idx[chosen].clamp(min=0)))
    return samples
