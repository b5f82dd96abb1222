"""The box head: the class of a RoI, and the exact box."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from botformer.batch_norm import make_norm
from botformer.detection.batch_means import ONE_PROCESS, Processes
from botformer.detection.box_coder import BoxCoder
from botformer.detection.flip_augmentation import mirror_boxes, mirror_deltas
from botformer.detection.float_types import at_least_float32
from botformer.detection.roi_heads.roi_align import RoIPooler
from botformer.detection.roi_heads.sampling import SampledProposals
from botformer.detection.stable_order import stable_nms
from botformer.detection.targets import Targets
from botformer.recipes.detector_settings import Settings

SMALLEST_PX = 1e-2


@dataclass(frozen=True)
class Detections:
    """n objects found in one image, best first."""

    boxes_xyxy: Tensor
    """(n, 4) float32."""
    labels: Tensor
    """(n,) int64, from 1."""
    scores: Tensor
    """(n,) float32, probabilities."""


class BoxHead(nn.Module):
    """RoIs -> classes and boxes: two fully connected layers with BatchNorm, then two linear ones."""

    def __init__(self, num_classes: int, pooling: RoIPooler, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.pooling: RoIPooler = pooling
        width = settings.box_channels
        self.fc1 = nn.Linear(settings.fpn_channels * settings.box_output_size**2, width, bias=False)
        self.norm1 = make_norm(width, settings)
        self.fc2 = nn.Linear(width, width, bias=False)
        self.norm2 = make_norm(width, settings)
        self.predictor = FastRCNNPredictor(width, num_classes + 1)
        for layer, std in ((self.predictor.cls_score, 0.01), (self.predictor.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
        self.coder = BoxCoder(settings.box_weights)

    def forward(self, pyramid: dict[str, Tensor], proposals_xyxy: list[Tensor]) -> tuple[Tensor, Tensor]:
        """k RoIs in all -> logits (k, classes + 1), the background first, and deltas (k, classes + 1, 4)."""
        x = self.pooling(pyramid, proposals_xyxy, self.settings.box_output_size).flatten(1)
        for layer, norm in ((self.fc1, self.norm1), (self.fc2, self.norm2)):
            x = F.relu(norm(layer(x)[:, :, None, None])[:, :, 0, 0])
        logits, deltas = self.predictor(x)
        dtype = at_least_float32(logits)
        return logits.to(dtype), deltas.to(dtype).unflatten(1, (-1, 4))

    def losses(
        self,
        pyramid: dict[str, Tensor],
        samples: list[SampledProposals],
        targets: list[Targets],
        processes: Processes = ONE_PROCESS,
    ) -> dict[str, Tensor]:
        """`loss_classifier`: mean cross-entropy; `loss_box_reg`: mean Huber loss of the objects' coordinates."""
        logits, deltas = self(pyramid, [sample.proposals_xyxy for sample in samples])
        labels = torch.cat([sample.labels for sample in samples])
        wanted = torch.cat(
            [
                self.coder.encode(image.boxes_xyxy[sample.matched_idx], sample.proposals_xyxy)
                for sample, image in zip((s.foreground() for s in samples), targets, strict=True)
            ]
        )
        said = deltas[labels > 0, labels[labels > 0]]
        box_loss = F.huber_loss(said, wanted, delta=self.settings.box_huber_delta, reduction="sum")
        counts = torch.stack([logits.new_full((), len(each)) for each in (labels, wanted)])  # a copy would wait
        of_all, of_objects = processes.weights_of_means(counts, len(targets))
        return {
            "loss_classifier": of_all * F.cross_entropy(logits, labels),
            "loss_box_reg": of_objects * box_loss / max(wanted.numel(), 1),
        }

    def detect(
        self,
        pyramid: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        in_mirror: dict[str, Tensor] | None = None,
    ) -> list[Detections]:
        """Proposals (n, 4) of images of (height, width) -> what is found in each.

        `in_mirror`: the pyramid of the mirror images, with which the predictions are averaged.
        """
        logits, deltas = self(pyramid, proposals)
        scores = logits.softmax(1)
        if in_mirror is not None:
            there = [mirror_boxes(boxes, width) for boxes, (_, width) in zip(proposals, sizes, strict=True)]
            other_logits, other_deltas = self(in_mirror, there)
            scores = (scores + other_logits.softmax(1)) / 2
            deltas = (deltas + mirror_deltas(other_deltas)) / 2
        counts = [len(boxes) for boxes in proposals]
        return [
            self._select(score, delta, boxes, size)
            for score, delta, boxes, size in zip(
                scores.split(counts), deltas.split(counts), proposals, sizes, strict=True
            )
        ]

    def _select(self, scores: Tensor, deltas: Tensor, proposals: Tensor, size: tuple[int, int]) -> Detections:
        """Scores (n, classes + 1), deltas (n, classes + 1, 4): threshold, suppression within a class, the best."""
        settings = self.settings
        # Class after class: the order among equal scores.
        label, proposal = torch.where(scores[:, 1:].mT > settings.score_threshold)
        label = label + 1
        score = scores[proposal, label]
        boxes = self.coder.decode(deltas[proposal, label], proposals[proposal])
        boxes = clip_boxes_to_image(boxes, size)
        kept = remove_small_boxes(boxes, SMALLEST_PX)
        boxes, label, score = boxes[kept], label[kept], score[kept]
        kept = stable_nms(boxes, score, label, settings.nms_iou)[: settings.max_detections]
        return Detections(boxes[kept], label[kept], score[kept])
