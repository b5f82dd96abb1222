"""Detection as the training loop sees it: batch -> losses, batch -> objects, objects -> average precision."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from botformer.detection.detector import Detector
from botformer.detection.metrics import CocoMetrics

_TARGET_KEYS = ("boxes", "labels", "mask_crops", "has_mask")


class DetectionTask(nn.Module):
    """A detector with its losses and metrics.

    A batch holds `images` (B, 3, S, S) uint8, each picture in the top left corner of its canvas, and `targets`, a dict
    a picture with `size` (height, width) of the picture on the canvas, `boxes` and `labels`, in training for masks
    `mask_crops` and `has_mask`, in evaluation `original_size`, `image_id` and `ground_truth`.

    Args:
        model: boxes, or boxes and masks.
        card: what a checkpoint says of the model.
        categories: (id, name) as the data set has them; label 1 is the first.
        no_decay: names of the model's parameters that weight decay leaves alone.
    """

    def __init__(
        self, model: Detector, card: dict[str, Any], categories: Sequence[tuple[int, str]], no_decay: set[str]
    ) -> None:
        super().__init__()
        self.model = model
        self.categories = list(categories)
        self.with_masks = model.kind == "mask_rcnn"
        self.headline = "mask_AP" if self.with_masks else "box_AP"
        kinds = ("box", "mask") if self.with_masks else ("box",)
        self.shown: Sequence[str] = [f"{kind}_{name}" for kind in kinds for name in ("AP", "AP50", "AP75")]
        self._card, self._no_decay = card, no_decay

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The detector's losses, each a mean over the batch."""
        targets = [{key: target[key] for key in _TARGET_KEYS if key in target} for target in batch["targets"]]
        return self.model.losses(pictures(batch), targets)

    def predict(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As `detect`."""
        return detect(self.model, batch)

    def evaluator(self) -> CocoMetrics:
        kinds = ("box", "mask") if self.with_masks else ("box",)
        return CocoMetrics(self.categories, kinds, max(self.model.settings.max_detections, 11))

    def no_weight_decay(self) -> set[str]:
        return {f"model.{name}" for name in self._no_decay}

    def card(self) -> dict[str, Any]:
        return self._card


def detect(model: Detector, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `model` finds on a batch as an evaluation has it: in pixels of the files, masks as run lengths."""
    sizes = [(int(height), int(width)) for height, width in (t["original_size"] for t in batch["targets"])]
    return model(pictures(batch), sizes=sizes)


def pictures(batch: Mapping[str, Any]) -> list[Tensor]:
    """The pictures (3, h, w) of a batch in 0..1, without the canvas beside them."""
    sizes = (target["size"] for target in batch["targets"])
    return [
        image[:, : int(height), : int(width)].to(torch.float32) / 255
        for image, (height, width) in zip(batch["images"], sizes, strict=True)
    ]
