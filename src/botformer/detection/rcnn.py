"""The detector: pixels -> c2..c5 -> p2..p6 -> proposals -> boxes -> masks or key points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from botformer.detection.backbone_adapter import accepts_padding_mask, adapt_backbone, unwrapped
from botformer.detection.balanced_sampling import Generators
from botformer.detection.batch_means import ONE_PROCESS, Processes
from botformer.detection.export_detector import export_detector
from botformer.detection.flip_augmentation import Flip, mirror_boxes, mirrored
from botformer.detection.float_types import at_least_float32, weights_dtype
from botformer.detection.fpn import FeaturePyramid
from botformer.detection.masks import paste_window
from botformer.detection.padding import PaddedImages, check_images, group_by_padded_size, pad_images, shrink_to_fit
from botformer.detection.roi_heads.box_head import BoxHead, Detections
from botformer.detection.roi_heads.keypoint_head import KeypointHead
from botformer.detection.roi_heads.mask_head import MaskHead
from botformer.detection.roi_heads.roi_align import MultiScaleRoIAlign
from botformer.detection.roi_heads.sampling import sample_proposals
from botformer.detection.rpn import RegionProposalNetwork
from botformer.detection.targets import Targets, check_targets
from botformer.errors import InputError, unknown
from botformer.exportable import Exportable
from botformer.image_normalization import as_float_images, channel_statistics, normalize
from botformer.recipes.check import as_whole, height_and_width
from botformer.recipes.detector_settings import Kind, Settings
from botformer.rle import encode_window

MaskForm = Literal["rle", "dense"]
_MOST_CLASSES = 1_000_000
"""Beyond, a number is a mistake."""


@dataclass(frozen=True)
class Result:
    """The detections of one image."""

    detections: Detections
    masks: Tensor | None
    """(n, M, M) probabilities over each box."""
    keypoints: tuple[Tensor, Tensor] | None
    """(n, keypoints, 3) and (n, keypoints)."""


class Detector(nn.Module):
    """Mask R-CNN, Faster R-CNN or Keypoint R-CNN around any backbone. Build it with `build_detector`.

    `detector(images)` gives detections, `detector.losses(images, targets)` losses, `as_torchvision()` both in one call.
    Images are a list of (C, h, w) floats in 0..1 of any sizes; the detector normalises them itself by `mean` and `std`.
    Labels are torchvision's: 1 to num_classes, 0 is the background.

    After `.half()` or `.bfloat16()` the layers compute in that type, and boxes and scores in float32; after `.double()`
    everything in float64.
    """

    mean: Sequence[float]
    std: Sequence[float]
    """Of each channel, for values in 0..1. May be set; see `channel_statistics`."""

    def __init__(
        self,
        kind: Kind,
        backbone: nn.Module,
        num_classes: int,
        image_size: tuple[int, int],
        test_size: tuple[int, int],
        settings: Settings,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.num_classes, self.settings = num_classes, settings
        self.image_size, self.test_size = image_size, test_size
        """(height, width) of the canvas in training and in detection."""
        maps = [level.replace("p", "c") for level in settings.levels if level != "p6"]
        self.backbone = adapt_backbone(backbone, maps)
        self.passes_padding_mask = settings.padding_mask and accepts_padding_mask(self.backbone)
        """Whether the backbone is given the padding mask."""
        channels, strides = unwrapped(self.backbone).channels, unwrapped(self.backbone).strides
        self.fpn = FeaturePyramid(channels, strides, settings)
        self.rpn = RegionProposalNetwork(settings.levels, self.fpn.strides, settings)
        roi_align = MultiScaleRoIAlign(self.fpn.strides, settings)
        self.box_head = BoxHead(num_classes, roi_align, settings)
        self.mask_head = MaskHead(num_classes, roi_align, settings) if kind == "mask_rcnn" else None
        self.keypoint_head = KeypointHead(roi_align, settings) if kind == "keypoint_rcnn" else None
        in_chans = getattr(unwrapped(self.backbone), "in_chans", max(len(mean or ()), len(std or ())) or 3)
        self.mean, self.std = channel_statistics(in_chans, mean, std)

    @property
    def in_chans(self) -> int:
        """Channels of the images: those that the backbone takes; as many as `mean` has if it does not say."""
        return getattr(unwrapped(self.backbone), "in_chans", len(self.mean))

    def preprocess(self, images: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Images, (B, C, h, w) or a list of (C, h, w), uint8 or floats in 0..1 -> what `detector(...)` takes.

        A classifier has the same method: `model(model.preprocess(images))` is right for both.

        Raises:
            InputError: values that are neither bytes nor in 0..1, or another number of channels.
        """
        return list(as_float_images(images, self.in_chans))

    def forward(
        self, images: Sequence[Tensor], *, masks: MaskForm = "rle", tight: bool = False
    ) -> list[dict[str, Any]]:
        """Detections in each image, best first.

        Every image lies on a canvas of `test_size`, so that its neighbours change nothing; one that is larger is
        scaled down to fit first. Results are in pixels of the input all the same. No gradients are kept.

        Args:
            images: (C, h, w) floats in 0..1.
            masks: "rle": a list of n COCO run-length encodings, made one at a time (1,000 masks of 1024 px take a few
                hundred kilobytes); "dense": a bool tensor (n, h, w).
            tight: give each image the smallest canvas it fits on (a multiple of the coarsest stride) and run images of
                equal canvas together. Faster for small images; borders see less padding, so figures change a little.

        Returns:
            A dict per image with `boxes` (n, 4) xyxy, `labels` (n,), `scores` (n,) and, by kind, `masks`, or
            `keypoints` (n, keypoints, 3) with `keypoints_scores` (n, keypoints).

        Raises:
            InputError: bad images, or the detector is in training mode.
        """
        if masks not in get_args(MaskForm):
            raise unknown("form of masks", masks, get_args(MaskForm))
        images = list(images)
        results = self._results(images, tight)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        return [_as_dict(result, size, masks) for result, size in zip(results, sizes, strict=True)]

    def losses(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Losses under torchvision's names; their sum is to be minimised.

        Args:
            images: (C, h, w) floats in 0..1, none larger than `image_size`.
            targets: as `targets.check_targets` describes: torchvision's, or with masks as crops.

        Returns:
            `loss_objectness`, `loss_rpn_box_reg`, `loss_classifier`, `loss_box_reg` and, by kind, `loss_mask` or
            `loss_keypoint`.

        Raises:
            InputError: bad images or targets, naming the image and the box.
        """
        images = self._checked(images)
        if not images:
            raise InputError("losses of no images; give at least one")
        for index, image in enumerate(images):
            if image.shape[1] > self.image_size[0] or image.shape[2] > self.image_size[1]:
                raise InputError(
                    f"image {index} is {image.shape[2]}x{image.shape[1]} px, larger than the canvas of "
                    f"{self.image_size[1]}x{self.image_size[0]} (width x height); scale it and its target down, or "
                    "build the detector with a larger image_size"
                )
        padded = pad_images(images, self.image_size)
        return self.padded_losses(
            padded, check_targets(targets, padded.sizes, self.kind, self.num_classes, self.settings, self._device())
        )

    def padded_losses(
        self,
        images: PaddedImages,
        targets: list[Targets],
        seeds: Sequence[int] | None = None,
        processes: Processes = ONE_PROCESS,
    ) -> dict[str, Tensor]:
        """As `losses`, of images that lie on their canvas and targets that were checked: nothing is looked at again,
        so that a GPU is never waited for.

        Args:
            seeds: one per image, from which what is drawn for it follows; None: draws come from torch's generator.
            processes: those that compute the batch together: `batch_means` says how their losses become its losses.
        """
        generators = _generators(seeds, self._device())
        pyramid = self._pyramid(images)
        targets = [target.to(self._box_dtype()) for target in targets]
        rpn_output = self.rpn(pyramid)
        losses = self.rpn.losses(rpn_output, targets, generators, processes)
        proposals = self.rpn.propose(rpn_output, images.sizes, self.settings.rpn_pre_nms_top_n)
        samples = sample_proposals(proposals, targets, self.settings, generators)
        losses |= self.box_head.losses(pyramid, samples, targets, processes)
        if self.mask_head is not None:
            losses |= self.mask_head.losses(pyramid, samples, targets, processes)
        if self.keypoint_head is not None:
            losses |= self.keypoint_head.losses(pyramid, samples, targets, processes)
        return losses

    @torch.no_grad()
    def padded_detections(
        self, images: PaddedImages, sizes: Sequence[tuple[int, int]], flip: Flip | None = None
    ) -> list[dict[str, Any]]:
        """As `forward`, of images that lie on their canvas: one dict per image, masks as run lengths, in pixels of an
        image of that size (height, width), such as the file's. With `flip`, averaged with their mirror images."""
        results = self.detect_on_canvas(images, flip)
        return [in_image(result, seen, size) for result, seen, size in zip(results, images.sizes, sizes, strict=True)]

    def exportable(
        self, *, size: tuple[int, int] | None = None, batch: int | None = None, images: Sequence[Tensor] = ()
    ) -> Exportable:
        """As `botformer.exportable.ExportsItself` says: a graph for a canvas of `size` (`test_size` by default) and
        `batch` images (1 by default). `images` (C, h, w) that are larger are scaled down to the canvas."""
        return export_detector(self, size or self.test_size, batch or 1, images)

    def fold(self) -> None:
        """Fold the BatchNorms of the backbone, in place, if it can: to detect, never to train again."""
        if callable(fold := getattr(self.backbone, "fold", None)):
            fold()

    def as_torchvision(self) -> "TorchvisionCall":
        """The same detector behind torchvision's call, for scripts that expect it; weights are shared."""
        return TorchvisionCall(self).train(self.training)

    @torch.no_grad()
    def _results(self, images: list[Tensor], tight: bool) -> list[Result]:
        """In pixels of the images (C, h, w)."""
        inputs = self._checked(images)
        fitting = [shrink_to_fit(image, self.test_size) for image in inputs]
        if tight:
            groups = group_by_padded_size(fitting, max(self.fpn.strides))
        else:
            groups = {self.test_size: list(range(len(fitting)))} if fitting else {}
        results: dict[int, Result] = {}
        for canvas, members in groups.items():
            padded = pad_images([fitting[index] for index in members], canvas)
            for index, result, seen in zip(members, self.detect_on_canvas(padded), padded.sizes, strict=True):
                results[index] = _scaled(result, seen, (inputs[index].shape[1], inputs[index].shape[2]))
        return [results[index] for index in range(len(fitting))]

    def detect_on_canvas(self, images: PaddedImages, flip: Flip | None = None) -> list[Result]:
        """In pixels of the canvas; masks over their boxes, not pasted."""
        if self.training:
            raise InputError("detecting in training mode would use this batch's statistics; call .eval() first")
        pyramid, in_mirror = self._pyramid(images), None
        proposals = self._proposals(pyramid, images)
        if flip is not None:
            in_mirror = self._pyramid(mirrored(images))
            proposals = [
                torch.cat([here, there])
                for here, there in zip(proposals, _mirror(self._proposals(in_mirror, images), images), strict=True)
            ]
        detections = self.box_head.detect(pyramid, proposals, images.sizes, in_mirror)
        boxes, labels = [d.boxes_xyxy for d in detections], [d.labels for d in detections]
        there = _mirror(boxes, images)
        masks = keypoints = [None] * len(detections)
        if self.mask_head is not None:
            masks = self.mask_head.predict(pyramid, boxes, labels)
            if in_mirror is not None:
                others = self.mask_head.predict(in_mirror, there, labels)
                masks = [(mask + other.flip(-1)) / 2 for mask, other in zip(masks, others, strict=True)]
        if self.keypoint_head is not None:
            seen_there = None if flip is None or in_mirror is None else (in_mirror, there, flip.keypoints)
            keypoints = list(zip(*self.keypoint_head.predict(pyramid, boxes, seen_there), strict=True))
        return [Result(*parts) for parts in zip(detections, masks, keypoints, strict=True)]

    def _proposals(self, pyramid: dict[str, Tensor], images: PaddedImages) -> list[Tensor]:
        return self.rpn.propose(self.rpn(pyramid), images.sizes, self.settings.rpn_pre_nms_top_n_test)

    def normalized(self, images: PaddedImages) -> tuple[Tensor, Tensor | None]:
        """Pixels (B, C, h, w) as the backbone takes them, and the mask (B, h, w) of their padding, if there is any."""
        padding_mask = images.padding_mask()
        pixels = normalize(images.pixels.to(self._box_dtype()), self.mean, self.std)
        if padding_mask is not None:
            pixels = pixels.masked_fill(padding_mask[:, None], 0.0)  # the mean colour
        return pixels, padding_mask

    def _pyramid(self, images: PaddedImages) -> dict[str, Tensor]:
        pixels, padding_mask = self.normalized(images)
        more = {"padding_mask": padding_mask} if self.passes_padding_mask else {}
        return self.fpn(self.backbone(pixels.to(weights_dtype(self.backbone)), **more))

    def _checked(self, images: Sequence[Tensor]) -> list[Tensor]:
        return check_images(images, self.in_chans, self._device(), self._box_dtype())

    def _box_dtype(self) -> torch.dtype:
        return at_least_float32(self.box_head.fc1.weight)

    def _device(self) -> torch.device:
        return self.box_head.fc1.weight.device


def _generators(seeds: Sequence[int] | None, device: torch.device) -> Generators:
    return None if seeds is None else [torch.Generator(device).manual_seed(seed) for seed in seeds]


class TorchvisionCall(nn.Module):
    """torchvision's two faces: in training `(images, targets)` -> losses, in evaluation `(images)` -> detections.

    `masks` are (n, 1, h, w) probabilities. They are dense: use the detector itself where there are many.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]] | None = None) -> Any:
        """`images`, each (C, h, w) floats in 0..1, and in training their `targets` -> a dict of losses, or a list of
        dicts with `boxes` (n, 4), `labels` (n,), `scores` (n,) and so on.

        Raises:
            InputError: bad images or targets, or none of these in training.
        """
        if self.training:
            if targets is None:
                raise InputError("in training mode targets are needed too; call .eval() to detect")
            return self.detector.losses(images, targets)
        images = list(images)
        results = self.detector._results(images, tight=False)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        return [_as_dict(result, size, "probabilities") for result, size in zip(results, sizes, strict=True)]


def build_detector(
    kind: str,
    backbone: nn.Module,
    num_classes: int,
    image_size: int | Sequence[int],
    settings: Settings | None = None,
    test_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Detector:
    """A detector with random pyramid and heads around a backbone.

    Args:
        kind: "mask_rcnn", "faster_rcnn" or "keypoint_rcnn".
        backbone: a module from images to named maps, with `channels` and `strides` (see
            `backbone_adapter.adapt_backbone`), or one of timm's with `features_only=True`.
        num_classes: kinds of objects, without the background; labels run from 1 to num_classes.
        image_size: the canvas in pixels, one number or (height, width).
        settings: everything else; the paper's by default.
        test_size: the canvas in detection, where it differs: networks trained on crops see whole images later.
        mean, std: of each channel of the images, for values in 0..1; ImageNet's by default (see
            `image_normalization.channel_statistics`).

    Raises:
        InputError: an unknown kind, a value out of range, a backbone that does not say what it gives.
    """
    for known in get_args(Kind):
        if kind == known:
            break
    else:
        raise unknown("detector", kind, get_args(Kind))
    classes = as_whole(num_classes)
    if classes is None or not 1 <= classes <= _MOST_CLASSES:
        raise InputError(
            "num_classes counts kinds of objects without the background: a whole number, at most "
            f"{_MOST_CLASSES} and at least 1, got {num_classes!r}"
        )
    train = height_and_width("image_size", image_size)
    test = train if test_size is None or as_whole(test_size) == 0 else height_and_width("test_size", test_size)
    return Detector(known, backbone, classes, train, test, settings or Settings(), mean, std)


def _mirror(boxes_xyxy: list[Tensor], images: PaddedImages) -> list[Tensor]:
    return [mirror_boxes(boxes, width) for boxes, (_, width) in zip(boxes_xyxy, images.sizes, strict=True)]


def _scaled(result: Result, seen: tuple[int, int], size: tuple[int, int]) -> Result:
    """From pixels of the image as the network saw it, (height, width), to those of the image at another size."""
    if seen == size:
        return result
    factor = torch.tensor([size[1] / seen[1], size[0] / seen[0]], device=result.detections.boxes_xyxy.device)
    detections = replace(result.detections, boxes_xyxy=result.detections.boxes_xyxy * factor.repeat(2))
    keypoints = result.keypoints
    if keypoints is not None:
        points, scores = keypoints
        keypoints = (torch.cat([points[..., :2] * factor, points[..., 2:]], -1), scores)
    return replace(result, detections=detections, keypoints=keypoints)


def in_image(result: Result, seen: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """Detections on a canvas, where the image is `seen` (height, width), as those of an image of `size`: one of the
    dicts of `Detector.forward`, masks as run lengths."""
    return _as_dict(_scaled(result, seen, size), size, "rle")


def _as_dict(result: Result, size: tuple[int, int], masks: Literal["rle", "dense", "probabilities"]) -> dict[str, Any]:
    detections = result.detections
    found: dict[str, Any] = {
        "boxes": detections.boxes_xyxy,
        "labels": detections.labels,
        "scores": detections.scores,
    }
    if result.keypoints is not None:
        found["keypoints"], found["keypoints_scores"] = result.keypoints
    if result.masks is None:
        return found
    windows = (paste_window(mask, box, size) for mask, box in zip(result.masks, detections.boxes_xyxy, strict=True))
    if masks == "rle":
        found["masks"] = [encode_window((window >= 0.5).cpu().numpy(), corner, size) for window, corner in windows]
        return found
    pasted = detections.boxes_xyxy.new_zeros(len(detections.labels), *size)
    for index, (window, (top, left)) in enumerate(windows):
        pasted[index, top : top + window.shape[0], left : left + window.shape[1]] = window
    found["masks"] = pasted >= 0.5 if masks == "dense" else pasted[:, None]
    return found
