"""Detection as the training loop sees it: batch -> losses, batch -> detections, detections -> average precision."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from botformer.detection.batch_means import all_processes
from botformer.detection.evaluation.coco_eval import CocoEvaluator, Kind
from botformer.detection.flip_augmentation import Flip
from botformer.detection.padding import PaddedImages
from botformer.detection.rcnn import Detector
from botformer.detection.sliced_inference import Tiling
from botformer.detection.targets import Targets

_KINDS: dict[str, tuple[Kind, ...]] = {
    "mask_rcnn": ("box", "mask"),
    "faster_rcnn": ("box",),
    "keypoint_rcnn": ("box", "keypoints"),
}
"""What is measured of a detector; the last is the one that the best checkpoint is chosen by."""


_TILES_AT_ONCE = 4


class DetectionTask(nn.Module):
    """A detector with its losses and metrics.

    A batch holds `images` (B, 3, S, S) uint8, each image in the top left corner of its canvas, and `targets`, a dict
    per image with `size` (height, width) of the image on the canvas, `boxes` and `labels`, in training for masks
    `mask_crops` and `has_mask`, for key points `keypoints`, in evaluation `original_size`, `image_id` and
    `ground_truth`. `seeds`, where they are there, are one per image: what is drawn for it follows from its own. In
    evaluation an image may come in tiles, each on a canvas of its own; `detect` says how.

    Args:
        model: boxes alone, or with masks or key points.
        model_config: what a checkpoint says of the model; `keypoint_names` and `keypoint_sigmas` of key points.
        categories: (id, name) as the data set has them; label 1 is the first.
        no_decay: names of the model's parameters that weight decay leaves alone.
        flip: predict on mirror images too.
    """

    def __init__(
        self,
        model: Detector,
        model_config: dict[str, Any],
        categories: Sequence[tuple[int, str]],
        no_decay: set[str],
        flip: Flip | None = None,
    ) -> None:
        super().__init__()
        self.model, self.flip = model, flip
        self.categories = list(categories)
        self.kinds = _KINDS[model.kind]
        self.headline = f"{self.kinds[-1]}_AP"
        self.shown: Sequence[str] = [f"{kind}_{name}" for kind in self.kinds for name in ("AP", "AP50", "AP75")]
        self._model_config, self._no_decay = model_config, no_decay

    @property
    def has_unused_parameters(self) -> bool:
        return self.model.fpn.maps[-1] != "c5"  # the last stage is then computed in vain

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The detector's losses, each a mean over the batch.

        Of one process's part of a batch: what becomes that mean when the parts are averaged by their images. All
        processes of the program must then call this at once.
        """
        targets = [_targets(target) for target in batch["targets"]]
        return self.model.padded_losses(padded_images(batch), targets, batch.get("seeds"), all_processes())

    def predict(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """As `detect`."""
        return detect(self.model, batch, self.flip)

    def evaluator(self) -> CocoEvaluator:
        return CocoEvaluator(
            self.categories,
            self.kinds,
            max(self.model.settings.max_detections, 11),
            self._model_config.get("keypoint_names", ()),
            self._model_config.get("keypoint_sigmas", ()),
        )

    def no_weight_decay(self) -> set[str]:
        return {f"model.{name}" for name in self._no_decay}

    def model_config(self) -> dict[str, Any]:
        return self._model_config


def detect(model: Detector, batch: Mapping[str, Any], flip: Flip | None = None) -> list[dict[str, Any]]:
    """Detections of `model` on an evaluation batch: in pixels of the files, masks as run lengths.

    The target of an image that comes in tiles has `tile_px`, their side in pixels of the file, and `tile_sizes`, the
    (height, width) of each on its canvas, in place of `size`. The canvases of a batch follow each other in the order of
    the targets.
    """
    if not any("tile_px" in target for target in batch["targets"]):
        return model.padded_detections(padded_images(batch), _file_sizes(batch["targets"]), flip)
    found, first = [], 0
    for target in batch["targets"]:
        count = len(target.get("tile_sizes", (None,)))
        found.append(_detect_one(model, batch["images"][first : first + count], target, flip))
        first += count
    return found


def _detect_one(model: Detector, canvases: Tensor, target: Mapping[str, Any], flip: Flip | None) -> dict[str, Any]:
    """Detections on one image, of which `canvases` (tiles, 3, S, S) uint8 are the whole or its tiles."""
    if "tile_px" not in target:
        return detect(model, {"images": canvases, "targets": [target]}, flip)[0]
    (size,) = _file_sizes([target])
    tiling = Tiling(size, int(target["tile_px"]))
    parts = [
        {"size": seen, "original_size": (tile.bottom - tile.top, tile.right - tile.left)}
        for seen, tile in zip(target["tile_sizes"], tiling.tiles, strict=True)
    ]
    found = []
    for first in range(0, len(parts), _TILES_AT_ONCE):
        last = first + _TILES_AT_ONCE
        found += detect(model, {"images": canvases[first:last], "targets": parts[first:last]}, flip)
    return tiling.merge(found)


def _file_sizes(targets: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    return [(int(height), int(width)) for height, width in (target["original_size"] for target in targets)]


def padded_images(batch: Mapping[str, Any]) -> PaddedImages:
    """The images of a batch, on the canvas on which the data put them."""
    sizes = [(int(height), int(width)) for height, width in (target["size"] for target in batch["targets"])]
    return PaddedImages(batch["images"].to(torch.float32) / 255, sizes)


def _targets(target: Mapping[str, Any]) -> Targets:
    """As the data made them: they were checked when the annotations were read."""
    crops = target.get("mask_crops")
    return Targets(
        target["boxes"],
        target["labels"],
        None if crops is None else crops.to(torch.float32),
        target.get("has_mask"),
        target.get("keypoints"),
    )
