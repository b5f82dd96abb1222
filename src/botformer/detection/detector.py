"""The detector: pixels -> c2..c5 -> p2..p6 -> proposals -> boxes -> masks or key points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from botformer.detection.backbones import named_maps, takes_padding
from botformer.detection.boxes import BoxBranch, Found
from botformer.detection.canvas import Canvas, check_images, fit, group_by_padded_size, place
from botformer.detection.fpn import FeaturePyramid
from botformer.detection.keypoint_branch import KeypointBranch
from botformer.detection.mask_branch import MaskBranch
from botformer.detection.masks import paste_window
from botformer.detection.pooling import RegionPooling
from botformer.detection.proposals import ProposalNetwork
from botformer.detection.rle import encode_window
from botformer.detection.sampling import sample_regions
from botformer.detection.targets import check_targets
from botformer.errors import InputError, unknown
from botformer.recipes.detector import Kind, Settings
from botformer.recipes.schema import IMAGENET_MEAN, IMAGENET_STD

MaskForm = Literal["rle", "dense"]


@dataclass(frozen=True)
class _Result:
    """One picture's detections, in pixels of the input."""

    found: Found
    masks: Tensor | None
    """(n, M, M) probabilities over each box."""
    keypoints: tuple[Tensor, Tensor] | None
    """(n, keypoints, 3) and (n, keypoints)."""


class Detector(nn.Module):
    """Mask R-CNN, Faster R-CNN or Keypoint R-CNN around any backbone. Build it with `build_detector`.

    `detector(images)` finds; `detector.losses(images, targets)` teaches; `as_torchvision()` does both in one call.
    Images are a list of (3, h, w) floats in 0..1 of any sizes; the detector normalises them itself (ImageNet).
    Labels are torchvision's: 1 to num_classes, 0 is the background.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        kind: Kind,
        backbone: nn.Module,
        num_classes: int,
        image_size: tuple[int, int],
        test_size: tuple[int, int],
        settings: Settings,
    ) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.num_classes, self.settings = num_classes, settings
        self.image_size, self.test_size = image_size, test_size
        """(height, width) of the canvas in training and in detection."""
        self.backbone = named_maps(backbone, [level.replace("p", "c") for level in settings.levels if level != "p6"])
        self.tells_padding = settings.mask_padding and takes_padding(self.backbone)
        """Whether the backbone hears which pixels only fill the canvas."""
        channels: Any = self.backbone.channels
        strides: Any = self.backbone.strides
        self.pyramid = FeaturePyramid(channels, strides, settings)
        self.proposals = ProposalNetwork(settings.levels, self.pyramid.strides, settings)
        pooling = RegionPooling(self.pyramid.strides, settings)
        self.boxes = BoxBranch(num_classes, pooling, settings)
        self.masks = MaskBranch(num_classes, pooling, settings) if kind == "mask_rcnn" else None
        self.keypoints = KeypointBranch(pooling, settings) if kind == "keypoint_rcnn" else None
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def forward(
        self,
        images: Sequence[Tensor],
        *,
        masks: MaskForm = "rle",
        tight: bool = False,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Any]]:
        """What is in each image, best first.

        Every image lies on a canvas of `test_size`, so that its neighbours change nothing; one that is larger is
        scaled down to fit first. What comes back is in pixels of the input all the same. No gradients are kept.

        Args:
            images: (3, h, w) floats in 0..1.
            masks: "rle": a list of n COCO run-length encodings, made one at a time (1,000 masks of 1024 px take a few
                hundred kilobytes); "dense": a bool tensor (n, h, w).
            tight: give each image the smallest canvas it fits on (a multiple of the coarsest stride) and run images of
                equal canvas together. Faster for small images; borders see less padding, so figures change a little.
            sizes: (height, width) of each image's file, where it was scaled on the way here: what is found then comes
                in pixels of the file.

        Returns:
            A dict an image: `boxes` (n, 4) xyxy, `labels` (n,), `scores` (n,), and, by kind, `masks`, or `keypoints`
            (n, keypoints, 3) with `keypoints_scores` (n, keypoints).

        Raises:
            InputError: bad images, or the detector is in training mode.
        """
        if masks not in get_args(MaskForm):
            raise unknown("form of masks", masks, get_args(MaskForm))
        images = list(images)
        if sizes is not None and len(sizes) != len(images):
            raise InputError(f"{len(sizes)} sizes for {len(images)} images; give one each")
        wanted = list(sizes) if sizes is not None else _sizes(images)
        results = self._results(images, wanted, tight)
        return [_as_dict(result, size, masks) for result, size in zip(results, wanted, strict=True)]

    def losses(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Losses under torchvision's names; their sum is to be minimised.

        Args:
            images: (3, h, w) floats in 0..1, none larger than `image_size`.
            targets: as `targets.check_targets` describes: torchvision's, or with masks as crops.

        Returns:
            `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`, `loss_box_reg` and, by kind, `loss_mask` or
            `loss_keypoint`.

        Raises:
            InputError: bad images or targets, naming the image and the box.
        """
        images = check_images(images, self._device())
        if not images:
            raise InputError("losses of no images; give at least one")
        for index, image in enumerate(images):
            if image.shape[1] > self.image_size[0] or image.shape[2] > self.image_size[1]:
                raise InputError(
                    f"image {index} is {image.shape[2]}x{image.shape[1]} px, larger than the canvas of "
                    f"{self.image_size[1]}x{self.image_size[0]} (width x height); scale it and its target down, or "
                    "build the detector with a larger image_size"
                )
        canvas = place(images, self.image_size)
        objects = check_targets(targets, canvas.sizes, self.kind, self.num_classes, self.settings, canvas.pixels.device)
        pyramid = self._pyramid_of(canvas)
        guesses = self.proposals(pyramid)
        losses = self.proposals.losses(guesses, objects)
        proposals = self.proposals.propose(guesses, canvas.sizes, self.settings.rpn_candidates)
        samples = sample_regions(proposals, objects, self.settings)
        losses |= self.boxes.losses(pyramid, samples, objects)
        if self.masks is not None:
            losses |= self.masks.losses(pyramid, samples, objects)
        if self.keypoints is not None:
            losses |= self.keypoints.losses(pyramid, samples, objects)
        return losses

    def as_torchvision(self) -> "TorchvisionCall":
        """The same detector behind torchvision's call, for scripts that expect it; weights are shared."""
        return TorchvisionCall(self).train(self.training)

    @torch.no_grad()
    def _results(self, images: list[Tensor], wanted: list[tuple[int, int]], tight: bool) -> list[_Result]:
        if self.training:
            raise InputError("detecting in training mode would use this batch's statistics; call .eval() first")
        inputs = check_images(images, self._device())
        fitted = [fit(image, self.test_size) for image in inputs]
        if tight:
            groups = group_by_padded_size(fitted, max(self.pyramid.strides))
        else:
            groups = {self.test_size: list(range(len(fitted)))} if fitted else {}
        results: dict[int, _Result] = {}
        for size, members in groups.items():
            found = self._detect(place([fitted[index] for index in members], size))
            for index, result in zip(members, found, strict=True):
                results[index] = _scaled(result, fitted[index].shape, wanted[index])
        return [results[index] for index in range(len(fitted))]

    def _detect(self, canvas: Canvas) -> list[_Result]:
        pyramid = self._pyramid_of(canvas)
        guesses = self.proposals(pyramid)
        proposals = self.proposals.propose(guesses, canvas.sizes, self.settings.rpn_candidates_test)
        found = self.boxes.detect(pyramid, proposals, canvas.sizes)
        boxes, labels = [f.boxes_xyxy for f in found], [f.labels for f in found]
        masks = self.masks.predict(pyramid, boxes, labels) if self.masks is not None else [None] * len(found)
        keypoints = (
            list(zip(*self.keypoints.predict(pyramid, boxes), strict=True))
            if self.keypoints is not None
            else [None] * len(found)
        )
        return [_Result(*parts) for parts in zip(found, masks, keypoints, strict=True)]

    def _pyramid_of(self, canvas: Canvas) -> dict[str, Tensor]:
        padding = canvas.padding()
        pixels = (canvas.pixels - self.mean) / self.std
        if padding is not None:
            pixels = pixels.masked_fill(padding[:, None], 0.0)  # the mean colour
        told = {"padding": padding} if self.tells_padding else {}
        return self.pyramid(self.backbone(pixels, **told))

    def _device(self) -> torch.device:
        return self.boxes.fc1.weight.device


class TorchvisionCall(nn.Module):
    """torchvision's two faces: in training `(images, targets)` -> losses, in evaluation `(images)` -> detections.

    `masks` are (n, 1, h, w) probabilities. They are dense: use the detector itself where there are many.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None = None) -> Any:
        if self.training:
            if targets is None:
                raise InputError("in training mode targets are needed too; call .eval() to detect")
            return self.detector.losses(images, targets)
        images = list(images)
        sizes = _sizes(images)
        results = self.detector._results(images, sizes, tight=False)
        return [_as_dict(result, size, "probabilities") for result, size in zip(results, sizes, strict=True)]


def build_detector(
    kind: str,
    backbone: nn.Module,
    num_classes: int,
    image_size: int | tuple[int, int],
    settings: Settings | None = None,
    test_size: int | tuple[int, int] | None = None,
) -> Detector:
    """A detector with random pyramid and heads around a backbone.

    Args:
        kind: "mask_rcnn", "faster_rcnn" or "keypoint_rcnn".
        backbone: a module from images to named maps, with `channels` and `strides` (see `backbones.named_maps`), or
            one of timm's with `features_only=True`.
        num_classes: kinds of objects, without the background; labels run from 1 to num_classes.
        image_size: the canvas in pixels, one number or (height, width).
        settings: everything else; the paper's by default.
        test_size: the canvas in detection, where it differs: networks trained on crops see whole pictures later.

    Raises:
        InputError: an unknown kind, a value out of range, a backbone that does not say what it gives.
    """
    for known in get_args(Kind):
        if kind == known:
            break
    else:
        raise unknown("detector", kind, get_args(Kind))
    if num_classes < 1:
        raise InputError(f"num_classes counts kinds of objects without the background: at least 1, got {num_classes}")
    train, test = _side("image_size", image_size), _side("test_size", test_size or image_size)
    return Detector(known, backbone, num_classes, train, test, settings or Settings())


def _side(name: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width)."""
    height, width = size if isinstance(size, tuple) else (size, size)
    if min(height, width) < 1:
        raise InputError(f"{name} must be at least 1 pixel, got {height}x{width}")
    return height, width


def _sizes(images: list[Tensor]) -> list[tuple[int, int]]:
    """(height, width) of each; what is not an image is refused later, with its number."""
    return [(image.shape[-2], image.shape[-1]) if image.ndim >= 2 else (0, 0) for image in images]


def _scaled(result: _Result, seen: torch.Size, wanted: tuple[int, int]) -> _Result:
    """From pixels of the picture as the network saw it, (3, h, w), to those of a picture (height, width)."""
    if tuple(seen[1:]) == wanted:
        return result
    factor = torch.tensor([wanted[1] / seen[2], wanted[0] / seen[1]], device=result.found.boxes_xyxy.device)
    found = replace(result.found, boxes_xyxy=result.found.boxes_xyxy * factor.repeat(2))
    keypoints = result.keypoints
    if keypoints is not None:
        points, scores = keypoints
        keypoints = (torch.cat([points[..., :2] * factor, points[..., 2:]], -1), scores)
    return replace(result, found=found, keypoints=keypoints)


def _as_dict(result: _Result, size: tuple[int, int], masks: Literal["rle", "dense", "probabilities"]) -> dict[str, Any]:
    found = result.found
    said: dict[str, Any] = {"boxes": found.boxes_xyxy, "labels": found.labels, "scores": found.scores}
    if result.keypoints is not None:
        said["keypoints"], said["keypoints_scores"] = result.keypoints
    if result.masks is None:
        return said
    windows = (paste_window(mask, box, size) for mask, box in zip(result.masks, found.boxes_xyxy, strict=True))
    if masks == "rle":
        said["masks"] = [encode_window(window >= 0.5, corner, size) for window, corner in windows]
        return said
    pasted = found.boxes_xyxy.new_zeros(len(found.labels), *size)
    for index, (window, (top, left)) in enumerate(windows):
        pasted[index, top : top + window.shape[0], left : left + window.shape[1]] = window
    said["masks"] = pasted >= 0.5 if masks == "dense" else pasted[:, None]
    return said
