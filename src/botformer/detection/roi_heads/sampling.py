"""Which proposals the RoI heads learn from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from botformer.detection.balanced_sampling import Generators, balanced_sample
from botformer.detection.matcher import match
from botformer.detection.targets import Targets
from botformer.recipes.detector_settings import Settings


@dataclass(frozen=True)
class SampledProposals:
    """k proposals of one image."""

    proposals_xyxy: Tensor
    """(k, 4)."""
    labels: Tensor
    """(k,) int64, 0 for background."""
    matched_idx: Tensor
    """(k,) int64: index of the object a proposal is matched to; 0 for background."""

    def foreground(self) -> "SampledProposals":
        """Without the background."""
        chosen = self.labels > 0
        return SampledProposals(self.proposals_xyxy[chosen], self.labels[chosen], self.matched_idx[chosen])


@torch.no_grad()
def sample_proposals(
    proposals: list[Tensor], targets: list[Targets], settings: Settings, generators: Generators = None
) -> list[SampledProposals]:
    """Proposals (n, 4) per image, and the objects' own boxes with them -> `SampledProposals` per image."""
    samples = []
    for boxes, image, generator in zip(proposals, targets, generators or [None] * len(targets), strict=True):
        candidates = torch.cat([boxes, image.boxes_xyxy])
        iou = settings.roi_positive_iou
        matched_idx = match(candidates, image.boxes_xyxy, iou, iou, allow_low_quality_matches=False)
        labels = torch.zeros_like(matched_idx)
        labels[matched_idx >= 0] = image.labels[matched_idx[matched_idx >= 0]]
        positive, negative = balanced_sample(
            labels > 0, labels == 0, settings.roi_samples, settings.roi_positive_fraction, generator
        )
        chosen = torch.where(positive | negative)[0]
        samples.append(SampledProposals(candidates[chosen], labels[chosen], matched_idx[chosen].clamp(min=0)))
    return samples
