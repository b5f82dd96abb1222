"""A detector as a graph that other runtimes can run: one canvas, one batch size, results of fixed shape.

The numbers are those of `Detector.padded_detections` on the same canvas. What Python decides there is data here: too
small a box gets a score below every other instead of being left out, and results are filled up to the number that the
settings allow.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from botformer.detection.float_types import weights_dtype
from botformer.detection.roi_heads import box_head
from botformer.detection.roi_heads.heatmaps import heatmaps_to_keypoints
from botformer.detection.roi_heads.roi_align import AtlasRoIAlign, MultiScaleRoIAlign
from botformer.detection.rpn import SMALLEST_PX, RPNOutput
from botformer.image_normalization import normalize

NEVER = -1e30
"""The score of what is none: far below any logit, and finite in every type of floats but float16."""

Suppression = Callable[[Tensor, Tensor, float], Tensor]
"""Boxes (G, N, 4) xyxy, scores (G, N) and an overlap -> bool (G, N): what is left of each group by itself, without
those whose score is `NEVER`."""
TopK = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""As `stable_topk`."""


class FixedCanvas(nn.Module):
    """pixels (B, C, H, W) floats in 0..1 and sizes (B, 2) int64, the height and width of each image in the top left
    corner of its canvas -> (boxes, scores, labels), and masks or key points by the kind of detector.

    boxes (B, K, 4) xyxy in pixels of the canvas, best first; scores (B, K); labels (B, K) int64 from 1; masks
    (B, K, M, M), probabilities over each box; keypoints (B, K, k, 3) x, y and the logit there. K is
    `settings.max_detections`; what was not found has score 0, label 0 and a box without extent.

    Args:
        detector: a copy of a `rcnn.Detector` in evaluation mode: its heads will read the pyramid in another way.
        size: (height, width) of the canvas.
        suppress: non-maximum suppression.
        topk: the best scores along the last axis.
    """

    def __init__(self, detector: Any, size: tuple[int, int], suppress: Suppression, topk: TopK) -> None:
        super().__init__()
        self.detector, self.size, self.suppress, self.topk = detector, size, suppress, topk
        self.roi_align = AtlasRoIAlign(MultiScaleRoIAlign(detector.fpn.strides, detector.settings))
        for head in (detector.box_head, detector.mask_head, detector.keypoint_head):
            if head is not None:
                head.pooling = self.roi_align

    def forward(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        detector = self.detector
        pyramid = self._pyramid(pixels, sizes)
        limits = sizes.flip(1).repeat(1, 2).to(pixels.dtype)  # (B, 4): width, height, width, height
        proposals, is_proposal = self._proposals(detector.rpn(pyramid), limits)
        atlas = self.roi_align.atlas(pyramid)
        boxes, scores, labels = self._detections(atlas, proposals, is_proposal, limits)
        results = [boxes, scores, labels]
        if detector.mask_head is not None:
            results.append(self._masks(atlas, boxes, scores, labels))
        if detector.keypoint_head is not None:
            results.append(self._keypoints(atlas, boxes, scores))
        return tuple(results)

    def _pyramid(self, pixels: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        detector, (height, width) = self.detector, self.size
        rows, columns = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
        padding_mask = (rows >= sizes[:, :1])[:, :, None] | (columns >= sizes[:, 1:])[:, None, :]
        pixels = normalize(pixels, detector.mean, detector.std).masked_fill(padding_mask[:, None], 0.0)
        more = {"padding_mask": padding_mask} if detector.passes_padding_mask else {}
        return detector.fpn(detector.backbone(pixels.to(weights_dtype(detector.backbone)), **more))

    def _proposals(self, rpn_output: RPNOutput, limits: Tensor) -> tuple[Tensor, Tensor]:
        """(B, R, 4) boxes xyxy, best first, and bool (B, R): it is one."""
        rpn, settings = self.detector.rpn, self.detector.settings
        most = min(settings.rpn_pre_nms_top_n_test, max(len(anchors) for anchors in rpn_output.anchors_xyxy))
        boxes, scores = [], []
        for logits, deltas, anchors in zip(rpn_output.logits, rpn_output.deltas, rpn_output.anchors_xyxy, strict=True):
            count = min(most, len(anchors))
            score, best = self.topk(logits, count)
            delta = deltas.gather(1, best[:, :, None].expand(-1, -1, 4))
            box = rpn.coder.decode(delta.flatten(0, 1), anchors[best.flatten()]).unflatten(0, (-1, count))
            boxes.append(F.pad(box, (0, 0, 0, most - count)))
            scores.append(F.pad(score, (0, most - count), value=NEVER))
        box, score = torch.stack(boxes, 1), torch.stack(scores, 1)  # (B, levels, most, ...)
        box = torch.minimum(box.clamp(min=0), limits[:, None, None])
        score = _left(score, _extended(box, SMALLEST_PX))
        kept = self.suppress(box.flatten(0, 1), score.flatten(0, 1), settings.rpn_nms_iou).view_as(score)
        score, best = self.topk(_left(score, kept).flatten(1), min(settings.rpn_post_nms_top_n, len(boxes) * most))
        return _at(box.flatten(1, 2), best), score > NEVER

    def _detections(
        self, atlas: dict[str, Tensor], proposals: Tensor, is_proposal: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        head, settings = self.detector.box_head, self.detector.settings
        batch, count = is_proposal.shape
        logits, deltas = head(atlas, list(proposals))
        scores = logits.softmax(1)[:, 1:].reshape(batch, count, -1).mT  # (B, classes, R)
        classes = scores.shape[1]
        deltas = deltas[:, 1:].reshape(batch, count, classes, 4).transpose(1, 2)
        references = proposals[:, None].expand(-1, classes, -1, -1)
        boxes = head.coder.decode(deltas.reshape(-1, 4), references.reshape(-1, 4)).reshape(batch, classes, count, 4)
        boxes = torch.minimum(boxes.clamp(min=0), limits[:, None, None])
        found = (scores > settings.score_threshold) & is_proposal[:, None] & _extended(boxes, box_head.SMALLEST_PX)
        scores = _left(scores, found)
        kept = self.suppress(boxes.flatten(0, 1), scores.flatten(0, 1), settings.nms_iou).view_as(scores)
        most = settings.max_detections
        scores, best = self.topk(_left(scores, kept).flatten(1), min(most, classes * count))
        is_object = scores > NEVER
        boxes = _at(boxes.flatten(1, 2), best) * is_object[..., None]
        missing = (0, most - best.shape[1])
        return (
            F.pad(boxes, (0, 0, *missing)),
            F.pad(torch.where(is_object, scores, 0.0), missing),
            F.pad((best // count + 1) * is_object, missing),
        )

    def _masks(self, atlas: dict[str, Tensor], boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
        head = self.detector.mask_head
        assert head is not None
        logits = head(atlas, list(boxes))
        masks = _at(logits, labels.reshape(-1, 1))[:, 0].sigmoid()
        return masks.unflatten(0, scores.shape) * (scores > 0)[..., None, None]

    def _keypoints(self, atlas: dict[str, Tensor], boxes: Tensor, scores: Tensor) -> Tensor:
        head = self.detector.keypoint_head
        assert head is not None
        points, logits = heatmaps_to_keypoints(head(atlas, list(boxes)), boxes.flatten(0, 1))
        keypoints = torch.cat([points, logits[..., None]], -1)
        return keypoints.unflatten(0, scores.shape) * (scores > 0)[..., None, None]


def suppress_by_torchvision(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """`Suppression` by torchvision's operator for one group: groups lie side by side, far from each other.

    In float64, where a shift of a float32 is exact. Two boxes beside all groups are there for `torch.export`, which
    fixes in a graph that there are two boxes or more.
    """
    count = scores.numel()
    place = (scores > NEVER).flatten().nonzero()[:, 0]
    apart = boxes.max().double() + 1
    moved = boxes.double().flatten(0, 1)[place] + (place // scores.shape[1] * apart)[:, None]
    beside = moved.new_tensor([[-4.0, -4.0, -3.0, -3.0], [-2.0, -2.0, -1.0, -1.0]])
    best_first = nms(
        torch.cat([moved, beside]), torch.cat([scores.double().flatten()[place], moved.new_full((2,), NEVER)]), iou
    )
    kept = torch.cat([place, torch.arange(count, count + 2, device=place.device)])[best_first]
    mask = torch.zeros(count + 2, dtype=torch.bool, device=boxes.device).index_fill(0, kept, True)
    return mask[:count].view_as(scores)


def _left(scores: Tensor, kept: Tensor) -> Tensor:
    return torch.where(kept, scores, NEVER)


def _extended(boxes: Tensor, smallest_px: float) -> Tensor:
    return ((boxes[..., 2:] - boxes[..., :2]) >= smallest_px).all(-1)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """values (B, N, ...) at places (B, n): (B, n, ...)."""
    more = values.shape[2:]
    index = places.reshape(*places.shape, *(1,) * len(more)).expand(-1, -1, *more)
    return values.gather(1, index)
