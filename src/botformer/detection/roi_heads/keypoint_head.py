"""The key point branch: a heat map for every key point within a box. Layers and loss are torchvision's."""

from torch import Tensor, nn
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.roi_heads import keypointrcnn_inference, keypointrcnn_loss

from botformer.detection.roi_heads.roi_align import MultiScaleRoIAlign
from botformer.detection.roi_heads.sampling import SampledProposals
from botformer.detection.targets import Targets
from botformer.recipes.detector_settings import Settings


class KeypointHead(nn.Module):
    """Regions -> heat maps (k, keypoints, 4 cells, 4 cells)."""

    def __init__(self, pooling: MultiScaleRoIAlign, settings: Settings) -> None:
        super().__init__()
        self.settings, self.pooling = settings, pooling
        widths = (settings.keypoint_channels,) * settings.keypoint_convolutions
        self.convolutions = KeypointRCNNHeads(settings.fpn_channels, widths)
        self.predictor = KeypointRCNNPredictor(settings.keypoint_channels, settings.keypoints)

    def forward(self, pyramid: dict[str, Tensor], proposals_xyxy: list[Tensor]) -> Tensor:
        x = self.pooling(pyramid, proposals_xyxy, self.settings.keypoint_output_size)
        return self.predictor(self.convolutions(x)).float()

    def losses(
        self, pyramid: dict[str, Tensor], samples: list[SampledProposals], targets: list[Targets]
    ) -> dict[str, Tensor]:
        """`loss_keypoint`: mean cross-entropy over the places of each visible key point."""
        chosen = [sample.foreground() for sample in samples]
        if not any(len(sample.labels) for sample in chosen):
            sample = samples[0]  # see MaskBranch.losses
            heat = self(pyramid, [sample.proposals_xyxy[:1]] + [sample.proposals_xyxy[:0]] * (len(samples) - 1))
            return {"loss_keypoint": heat.sum() * 0}
        regions = [sample.proposals_xyxy for sample in chosen]
        keypoints = []
        for image in targets:
            assert image.keypoints is not None
            keypoints.append(image.keypoints)
        loss = keypointrcnn_loss(self(pyramid, regions), regions, keypoints, [sample.matched_idx for sample in chosen])
        return {"loss_keypoint": loss}

    def predict(self, pyramid: dict[str, Tensor], boxes_xyxy: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (n, 4) an image -> (n, keypoints, 3) x, y, 1, and the heat there (n, keypoints)."""
        if not any(len(boxes) for boxes in boxes_xyxy):
            count = self.settings.keypoints
            return [b.new_zeros(0, count, 3) for b in boxes_xyxy], [b.new_zeros(0, count) for b in boxes_xyxy]
        points, scores = keypointrcnn_inference(self(pyramid, boxes_xyxy), boxes_xyxy)
        return points, scores
