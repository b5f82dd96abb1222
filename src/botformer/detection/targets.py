"""What is in an image, checked: torchvision's targets, or the same with masks as crops."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from botformer.detection.masks import crop_masks
from botformer.errors import InputError
from botformer.recipes.detector_settings import Kind, Settings

_CROP_PER_CELL = 8
"""Whole masks are kept as crops with so many cells per cell of the mask head's input: the code base's 112 for 14."""


@dataclass(frozen=True)
class Targets:
    """The n objects of one image, on the device of the detector."""

    boxes_xyxy: Tensor
    """(n, 4) float32, pixels of the image."""
    labels: Tensor
    """(n,) int64, 1 to num_classes; 0 is the background."""
    mask_crops: Tensor | None = None
    """(n, S, S) float32 in 0..1: the mask within its box, stretched to a square."""
    has_mask: Tensor | None = None
    """(n,) bool: objects with a box alone teach the mask head nothing."""
    keypoints: Tensor | None = None
    """(n, keypoints, 3) float32: x, y in pixels of the image, and whether it is visible."""

    def to(self, dtype: torch.dtype) -> "Targets":
        """The same with its floats in `dtype`."""
        return Targets(
            self.boxes_xyxy.to(dtype),
            self.labels,
            None if self.mask_crops is None else self.mask_crops.to(dtype),
            self.has_mask,
            None if self.keypoints is None else self.keypoints.to(dtype),
        )


def check_targets(
    targets: Sequence[Mapping[str, Any]],
    sizes: list[tuple[int, int]],
    kind: Kind,
    num_classes: int,
    settings: Settings,
    device: torch.device,
) -> list[Targets]:
    """Targets of a batch of images whose (height, width) are `sizes`.

    A target has `boxes` (n, 4) float xyxy in pixels, `labels` (n,) int64 from 1 to num_classes, and, by kind,
    `keypoints` (n, keypoints, 3), or masks in one of two forms: `masks` (n, height, width), as torchvision wants them,
    or `mask_crops` (n, S, S), each relative to its box, with an optional `has_mask` (n,) bool. Other keys are ignored.

    Raises:
        InputError: naming the image and the box.
    """
    if len(targets) != len(sizes):
        raise InputError(f"{len(sizes)} images but {len(targets)} targets; give one target per image")
    return [
        _Check(index, target, size, device).targets(kind, num_classes, settings)
        for index, (target, size) in enumerate(zip(targets, sizes, strict=True))
    ]


class _Check:
    """One image's target."""

    def __init__(self, image: int, target: Mapping[str, Any], size: tuple[int, int], device: torch.device) -> None:
        self.image, self.target, self.size, self.device = image, target, size, device

    def targets(self, kind: Kind, num_classes: int, settings: Settings) -> Targets:
        boxes = self._boxes()
        labels = self._labels(len(boxes), num_classes)
        if kind == "mask_rcnn":
            crops, has_mask = self._masks(boxes, settings)
            return Targets(boxes, labels, crops, has_mask)
        if kind == "keypoint_rcnn":
            return Targets(boxes, labels, keypoints=self._keypoints(len(boxes), settings))
        return Targets(boxes, labels)

    def _tensor(self, key: str) -> Tensor:
        if key not in self.target:
            raise InputError(f"target {self.image} has no '{key}'; it has {sorted(self.target)}")
        value = self.target[key]
        if not isinstance(value, Tensor):
            raise InputError(f"target {self.image}: '{key}' must be a tensor, got {type(value).__name__}")
        return value

    def _shaped(self, key: str, shape: tuple[int, ...], meaning: str) -> Tensor:
        value = self._tensor(key)
        if tuple(value.shape) != shape:
            raise InputError(
                f"target {self.image}: '{key}' must have shape {shape} ({meaning}), got {tuple(value.shape)}"
            )
        return value

    def _boxes(self) -> Tensor:
        boxes = self._tensor("boxes")
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not boxes.is_floating_point():
            raise InputError(
                f"target {self.image}: 'boxes' must be floats of shape (n, 4), xyxy in pixels, got {boxes.dtype} of "
                f"shape {tuple(boxes.shape)}; for an image without objects give torch.zeros(0, 4)"
            )
        boxes = boxes.detach().to(self.device, torch.float32)
        height, width = self.size
        low, high = boxes[:, :2], boxes[:, 2:]
        inside = (low < torch.tensor([width, height], device=boxes.device)) & (high > 0)
        self._reject(~boxes.isfinite().all(1), boxes, "is not finite; drop the box or repair the annotation")
        self._reject(
            (high <= low).any(1),
            boxes,
            "has no area; boxes are (x1, y1, x2, y2) with x1 < x2 and y1 < y2, not (x, y, w, h)",
        )
        self._reject(~inside.all(1), boxes, f"lies outside the image of {width}x{height} px (width x height)")
        return boxes

    def _reject(self, bad: Tensor, boxes: Tensor, what: str) -> None:
        if bad.any():
            index = int(bad.nonzero()[0])
            values = ", ".join(f"{value:g}" for value in boxes[index].tolist())
            raise InputError(f"target {self.image}, box {index}: ({values}) {what}")

    def _labels(self, count: int, num_classes: int) -> Tensor:
        labels = self._shaped("labels", (count,), "one per box")
        if labels.is_floating_point() or labels.dtype == torch.bool:
            raise InputError(f"target {self.image}: 'labels' must be integers, got {labels.dtype}")
        labels = labels.to(self.device, torch.int64)
        bad = (labels < 1) | (labels > num_classes)
        if bad.any():
            index = int(bad.nonzero()[0])
            raise InputError(
                f"target {self.image}, box {index}: label {int(labels[index])} is not one of 1 to {num_classes} "
                f"(0 is the background, and num_classes={num_classes} does not count it)"
            )
        return labels

    def _masks(self, boxes: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        count = len(boxes)
        if "mask_crops" in self.target:
            crops = self._tensor("mask_crops")
            if crops.ndim != 3 or len(crops) != count or crops.shape[1] != crops.shape[2]:
                raise InputError(
                    f"target {self.image}: 'mask_crops' must be squares, one per box: ({count}, S, S), got "
                    f"{tuple(crops.shape)}"
                )
            self._check_fractions(crops)
            crops = crops.to(self.device, torch.float32)
        elif "masks" in self.target:
            masks = self._shaped("masks", (count, *self.size), "boxes, height, width of the image")
            self._check_fractions(masks)  # cut out, a byte of 255 would be no more than a 1
            crops = crop_masks(masks, boxes, _CROP_PER_CELL * settings.mask_output_size)
        else:
            raise InputError(
                f"target {self.image} has neither 'masks' nor 'mask_crops', which a mask_rcnn learns from; "
                "use a faster_rcnn for boxes alone"
            )
        if "has_mask" not in self.target:
            return crops, torch.ones(count, dtype=torch.bool, device=self.device)
        return crops, self._shaped("has_mask", (count,), "one per box").to(self.device, torch.bool)

    def _check_fractions(self, masks: Tensor) -> None:
        if not masks.numel() or masks.dtype == torch.bool:
            return
        low, high = (float(value) for value in masks.aminmax())
        if not (low >= 0 and high <= 1):
            raise InputError(f"target {self.image}: masks must lie between 0 and 1, got {low:g} to {high:g}")

    def _keypoints(self, count: int, settings: Settings) -> Tensor:
        keypoints = self._shaped("keypoints", (count, settings.keypoints, 3), "boxes, key points, (x, y, visible)")
        keypoints = keypoints.to(self.device, torch.float32)
        bad = ~keypoints.isfinite().flatten(1).all(1)
        if bad.any():
            raise InputError(f"target {self.image}, box {int(bad.nonzero()[0])}: its keypoints are not finite")
        return keypoints
