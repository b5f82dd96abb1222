"""The key point head: a heat map for every key point within a box. The layers are torchvision's (public) ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor

from botformer.detection.batch_means import ONE_PROCESS, Processes
from botformer.detection.float_types import at_least_float32
from botformer.detection.roi_heads.heatmaps import heatmaps_to_keypoints, keypoints_to_cells
from botformer.detection.roi_heads.roi_align import RoIPooler
from botformer.detection.roi_heads.sampling import SampledProposals
from botformer.detection.targets import Targets
from botformer.recipes.detector_settings import Settings


class KeypointHead(nn.Module):
    """RoIs -> heat maps (k, keypoints, S, S), S = 4 keypoint_output_size."""

    def __init__(self, pooling: RoIPooler, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.pooling: RoIPooler = pooling
        widths = (settings.keypoint_channels,) * settings.keypoint_convolutions
        self.convolutions = KeypointRCNNHeads(settings.fpn_channels, widths)
        self.predictor = KeypointRCNNPredictor(settings.keypoint_channels, settings.keypoints)

    def forward(self, pyramid: dict[str, Tensor], proposals_xyxy: list[Tensor]) -> Tensor:
        """k RoIs in all -> logits (k, keypoints, S, S)."""
        x = self.pooling(pyramid, proposals_xyxy, self.settings.keypoint_output_size)
        logits = self.predictor(self.convolutions(x))
        return logits.to(at_least_float32(logits))

    def losses(
        self,
        pyramid: dict[str, Tensor],
        samples: list[SampledProposals],
        targets: list[Targets],
        processes: Processes = ONE_PROCESS,
    ) -> dict[str, Tensor]:
        """`loss_keypoint`: mean cross-entropy over the cells of each key point that is visible and lies in its RoI."""
        chosen = [sample.foreground() for sample in samples]
        proposals = torch.cat([sample.proposals_xyxy for sample in chosen])
        keypoints = [_keypoints(image)[sample.matched_idx] for sample, image in zip(chosen, targets, strict=True)]
        cells, usable = keypoints_to_cells(torch.cat(keypoints), proposals, 4 * self.settings.keypoint_output_size)
        weight = usable.flatten().float()
        (of_points,) = processes.weights_of_means(weight.sum()[None], len(targets))
        if not len(proposals):
            sample = samples[0]  # see MaskHead.losses
            logits = self(pyramid, [sample.proposals_xyxy[:1]] + [sample.proposals_xyxy[:0]] * (len(samples) - 1))
            return {"loss_keypoint": logits.sum() * 0}
        logits = self(pyramid, [sample.proposals_xyxy for sample in chosen]).flatten(2)
        # All of them, weighted: choosing the usable ones would wait for the device.
        each = F.cross_entropy(logits.flatten(0, 1), cells.flatten(), reduction="none")
        return {"loss_keypoint": of_points * (each * weight).sum() / weight.sum().clamp(min=1)}

    def predict(
        self,
        pyramid: dict[str, Tensor],
        boxes_xyxy: list[Tensor],
        in_mirror: tuple[dict[str, Tensor], list[Tensor], Sequence[int]] | None = None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (n, 4) per image -> per image (n, keypoints, 3) x, y, 1 and the logits there (n, keypoints).

        `in_mirror`: the pyramid of the mirror images, the boxes there, and the key point that stands there for each:
        the heat maps of both are averaged.
        """
        counts = [len(boxes) for boxes in boxes_xyxy]
        if not any(counts):
            count = self.settings.keypoints
            return [b.new_zeros(0, count, 3) for b in boxes_xyxy], [b.new_zeros(0, count) for b in boxes_xyxy]
        logits = self(pyramid, boxes_xyxy)
        if in_mirror is not None:
            other, there, exchanged = in_mirror
            logits = (logits + self(other, there)[:, list(exchanged)].flip(-1)) / 2
        points, scores = heatmaps_to_keypoints(logits, torch.cat(boxes_xyxy))
        points = torch.cat([points, torch.ones_like(points[..., :1])], -1)
        return list(points.split(counts)), list(scores.split(counts))


def _keypoints(image: Targets) -> Tensor:
    assert image.keypoints is not None
    return image.keypoints
