"""The mask head: the shape within a box."""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from botformer.batch_norm import make_norm
from botformer.detection.batch_means import ONE_PROCESS, Processes
from botformer.detection.float_types import at_least_float32
from botformer.detection.masks import mask_targets
from botformer.detection.roi_heads.roi_align import RoIPooler
from botformer.detection.roi_heads.sampling import SampledProposals
from botformer.detection.targets import Targets
from botformer.recipes.detector_settings import Settings
from botformer.sync_batch_norm import is_synchronised


class MaskHead(nn.Module):
    """RoIs -> a mask for every class: 3x3 convolutions, a transposed one that doubles the cells, a 1x1."""

    def __init__(self, num_classes: int, pooling: RoIPooler, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.pooling: RoIPooler = pooling
        width, norm = settings.mask_channels, partial(make_norm, options=settings)
        widths = [settings.fpn_channels] + [width] * settings.mask_convolutions
        self.convolutions = nn.Sequential(*(Conv2dNormActivation(a, b, norm_layer=norm) for a, b in pairwise(widths)))
        self.enlarge = nn.ConvTranspose2d(widths[-1], width, 2, stride=2, bias=False)
        self.norm = make_norm(width, settings)
        self.logits = nn.Conv2d(width, num_classes + 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pyramid: dict[str, Tensor], proposals_xyxy: list[Tensor]) -> Tensor:
        """k RoIs in all -> logits (k, classes + 1, M, M), M = 2 mask_output_size; the background's are not used."""
        x = self.convolutions(self.pooling(pyramid, proposals_xyxy, self.settings.mask_output_size))
        logits = self.logits(F.relu(self.norm(self.enlarge(x))))
        return logits.to(at_least_float32(logits))

    def losses(
        self,
        pyramid: dict[str, Tensor],
        samples: list[SampledProposals],
        targets: list[Targets],
        processes: Processes = ONE_PROCESS,
    ) -> dict[str, Tensor]:
        """`loss_mask`: mean cross-entropy of the cells of proposals whose object has a mask."""
        chosen = [sample.foreground() for sample in samples]
        masked = [_has_mask(image)[sample.matched_idx] for sample, image in zip(chosen, targets, strict=True)]
        weight = torch.cat(masked).float()
        (of_masks,) = processes.weights_of_means(weight.sum()[None], len(targets))
        if self._lacks_input(sum(len(sample.labels) for sample in chosen), processes, weight.device):
            # One background proposal with weight 0: BatchNorm needs an input, and every process must
            # take part when statistics and gradients are averaged.
            sample = samples[0]
            logits = self(pyramid, [sample.proposals_xyxy[:1]] + [sample.proposals_xyxy[:0]] * (len(samples) - 1))
            return {"loss_mask": logits.sum() * 0}
        logits = self(pyramid, [sample.proposals_xyxy for sample in chosen])
        labels = torch.cat([sample.labels for sample in chosen])
        wanted = []
        for sample, image in zip(chosen, targets, strict=True):
            assert image.mask_crops is not None
            wanted.append(
                mask_targets(
                    image.mask_crops, image.boxes_xyxy, sample.matched_idx, sample.proposals_xyxy, logits.shape[-1]
                )
            )
        said = logits[torch.arange(len(labels), device=labels.device), labels]
        cells = F.binary_cross_entropy_with_logits(said, torch.cat(wanted), reduction="none").mean((1, 2))
        return {"loss_mask": of_masks * (cells * weight).sum() / weight.sum().clamp(min=1)}

    def _lacks_input(self, regions: int, processes: Processes, device: torch.device) -> bool:
        """Whether BatchNorm, for which this process has so many regions, would get nothing to take statistics of."""
        if not is_synchronised(self.norm):
            return regions == 0
        # Among the regions of all processes there is one or more, or else the first of them lends one.
        return processes.total(regions, device) == 0 and processes.index == 0

    def predict(self, pyramid: dict[str, Tensor], boxes_xyxy: list[Tensor], labels: list[Tensor]) -> list[Tensor]:
        """Boxes (n, 4) and labels (n,) per image -> probabilities (n, M, M) of the labelled class over each box."""
        if not any(len(boxes) for boxes in boxes_xyxy):
            side = 2 * self.settings.mask_output_size
            return [boxes.new_zeros(0, side, side) for boxes in boxes_xyxy]
        logits = self(pyramid, boxes_xyxy)
        label = torch.cat(labels)
        masks = logits[torch.arange(len(label), device=label.device), label].sigmoid()
        return list(masks.split([len(boxes) for boxes in boxes_xyxy]))


def _has_mask(image: Targets) -> Tensor:
    assert image.has_mask is not None
    return image.has_mask
