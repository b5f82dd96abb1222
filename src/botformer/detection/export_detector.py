"""What a detector says of itself to be exported: its graph, and how to tell whether a graph finds the same objects."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from botformer.detection.backbone_adapter import unwrapped
from botformer.detection.fixed_canvas import FixedCanvas, suppress_by_torchvision
from botformer.detection.onnx_operators import onnx_translations, suppress_in_onnx, topk_in_onnx
from botformer.detection.padding import PaddedImages, check_images, pad_images, shrink_to_fit
from botformer.detection.stable_order import stable_topk
from botformer.exportable import Exportable, Outputs

_SAME_PX = 0.5
"""A key point that is further off is another one."""
_SAME_SCORE = 1e-3
"""By this little a detection may miss the threshold, or the number that is kept."""
_SAME_IOU = 0.5
"""Detections that overlap by more, of one label, are the same."""
_LIMITS = {
    # A decision between two boxes of nearly equal overlap may fall the other way by rounding.
    "float32": {"unmatched": 0.01, "boxes_px": 0.5, "scores": 1e-4, "masks": 0.01, "keypoints": 0.01},
    # Of half the digits (weights) or a third (all of it) these say that nothing is broken. Whether it is good enough,
    # average precision says.
    "float16": {"unmatched": 0.05, "boxes_px": 16.0, "scores": 0.1, "masks": 1.0, "keypoints": 0.3},
    "bfloat16": {"unmatched": 0.2, "boxes_px": 64.0, "scores": 0.5, "masks": 1.0, "keypoints": 0.5},
}


def export_detector(detector: Any, size: tuple[int, int], batch: int, images: Sequence[Tensor]) -> Exportable:
    """A `rcnn.Detector` as `Exportable`: (height, width) of the canvas, images per call, images to compare on."""
    given = copy.deepcopy(detector).cpu().float().eval().requires_grad_(False)
    given.backbone = unwrapped(given.backbone)
    masks = {"mask_rcnn": ("masks",), "keypoint_rcnn": ("keypoints",), "faster_rcnn": ()}[given.kind]
    example = _on_canvas(_objects(given.in_chans, *size, seed=0), size, batch, (0.9, 0.8))
    probes = [
        _on_canvas(_objects(given.in_chans, *size, seed=1), size, batch, (1.0, 1.0)),
        _on_canvas(torch.full((given.in_chans, *size), 0.5), size, batch, (0.6, 1.0)),  # nothing to be found
    ]
    for image in check_images(images, given.in_chans, torch.device("cpu"), torch.float32):
        padded = pad_images([shrink_to_fit(image, size)] * batch, size)
        probes.append((padded.pixels, torch.tensor(padded.sizes)))
    settings = given.settings
    return Exportable(
        task="detection",
        module=_graph(given, size, onnx=False),
        onnx_module=_graph(given, size, onnx=True),
        onnx_operators=onnx_translations,
        reference=_Reference(given),
        example=example,
        input_names=("pixels", "sizes"),
        output_names=("boxes", "scores", "labels", *masks),
        dynamic={},
        probes=probes,
        differences=_Differences(settings.score_threshold),
        limits=_LIMITS,
        settings={
            "detector": given.kind,
            "num_classes": given.num_classes,
            "canvas": list(size),
            "max_detections": settings.max_detections,
            "score_threshold": settings.score_threshold,
        },
    )


def _graph(given: Any, size: tuple[int, int], onnx: bool) -> FixedCanvas:
    detector = copy.deepcopy(given)
    detector.fold()
    for module in detector.modules():
        if isinstance(getattr(module, "backend", None), str):
            setattr(module, "backend", "sdpa")  # noqa: B010  (attention of operators that every runtime has)
    operators = (suppress_in_onnx, topk_in_onnx) if onnx else (suppress_by_torchvision, stable_topk)
    return FixedCanvas(detector, size, *operators).eval()


class _Reference:
    """The detector itself, its results filled up to what a graph gives."""

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    @torch.no_grad()
    def __call__(self, pixels: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        padded = PaddedImages(pixels, [(height, width) for height, width in sizes.tolist()])
        images = []
        for result in self.detector.detect_on_canvas(padded):
            found = result.detections
            parts = [found.boxes_xyxy, found.scores, found.labels]
            if result.masks is not None:
                parts.append(result.masks)
            if result.keypoints is not None:
                points, logits = result.keypoints
                parts.append(torch.cat([points[..., :2], logits[..., None]], -1))
            missing = self.detector.settings.max_detections - len(found.labels)
            images.append([F.pad(part, (0, 0) * (part.ndim - 1) + (0, missing)) for part in parts])
        return tuple(torch.stack(parts) for parts in zip(*images, strict=True))


class _Differences:
    """How far the detections of two graphs are apart. Figures, each 0 where they are the same:

    unmatched: the fraction of the detections that the other graph has not, near it and of its label. Left out are those
        at the threshold, and at the score of the last that was kept.
    boxes_px, scores: the largest difference between those that match.
    masks: 1 - IoU of their masks, the largest. One cell is no difference: its probability may be one half.
    keypoints: the fraction of the key points that are not where the other has them. Of two cells of a heat map that are
        nearly equal either may be the hottest.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def __call__(self, expected: Outputs, found: Outputs) -> dict[str, float]:
        figures = {"unmatched": 0.0, "boxes_px": 0.0, "scores": 0.0}
        total = unmatched = moved = points = 0
        for image in range(len(expected["scores"])):
            one, other = ({name: values[image] for name, values in outputs.items()} for outputs in (expected, found))
            pairs = _pairs(one, other)
            matched = [{pair[side] for pair in pairs} for side in (0, 1)]
            for outputs, partners in ((one, matched[0]), (other, matched[1])):
                sure = np.flatnonzero(outputs["scores"] > self._least(outputs["scores"]))
                total += len(sure)
                unmatched += len(set(sure.tolist()) - partners)
            for here, there in pairs:
                boxes, scores = (np.abs(one[name][here] - other[name][there]).max() for name in ("boxes", "scores"))
                figures["boxes_px"] = max(figures["boxes_px"], float(boxes))
                figures["scores"] = max(figures["scores"], float(scores))
                if "masks" in one:
                    apart = _apart(one["masks"][here] >= 0.5, other["masks"][there] >= 0.5)
                    figures["masks"] = max(figures.get("masks", 0.0), apart)
                if "keypoints" in one:
                    distance = np.abs(one["keypoints"][here] - other["keypoints"][there])[:, :2].max(1)
                    moved, points = moved + int((distance > _SAME_PX).sum()), points + len(distance)
        figures["unmatched"] = unmatched / max(total, 1)
        if points:
            figures["keypoints"] = moved / points
        return figures

    def _least(self, scores: np.ndarray) -> float:
        return max(self.threshold, float(scores.min())) + _SAME_SCORE


def _pairs(one: Outputs, other: Outputs) -> list[tuple[int, int]]:
    """Places of the same detection in both, the best first: each with the nearest that is left."""
    pairs, free = [], np.flatnonzero(other["scores"] > 0)
    for here in np.flatnonzero(one["scores"] > 0):
        box, boxes = one["boxes"][here], other["boxes"][free]
        same = (other["labels"][free] == one["labels"][here]) & (_iou(box, boxes) > _SAME_IOU)
        if same.any():
            apart = np.abs(boxes - box).max(1) + np.abs(other["scores"][free] - one["scores"][here])
            best = np.where(same, apart, np.inf).argmin()
            pairs.append((int(here), int(free[best])))
            free = np.delete(free, best)
    return pairs


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Of one box (4,) and boxes (n, 4), xyxy: (n,)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    both = sides.clip(min=0).prod(1)
    return both / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - both)


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """1 - IoU of two masks, as if they were equal in one cell in which they are not."""
    different, either = int((one != other).sum()), int((one | other).sum())
    return max(different - 1, 0) / max(either, 1)


def _on_canvas(image: Tensor, size: tuple[int, int], batch: int, covered: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """A batch of one image (C, H, W), cut to a fraction of the canvas; every second one is turned upside down."""
    height, width = (max(1, round(side * fraction)) for side, fraction in zip(size, covered, strict=True))
    cut = image[:, :height, :width]
    padded = pad_images([cut if number % 2 == 0 else cut.flip(1) for number in range(batch)], size)
    return padded.pixels, torch.tensor(padded.sizes)


def _objects(channels: int, height: int, width: int, seed: int) -> Tensor:
    """Bright and dark discs on a smooth, noisy ground, the same every time: (C, H, W) in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    image = (
        0.3
        + 0.2 * F.interpolate(torch.rand(1, channels, 4, 5, generator=generator), (height, width), mode="bilinear")[0]
    )
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    for row, column, radius, bright in torch.rand(24, 4, generator=generator).tolist():
        disc = (y - row) ** 2 + (x - column) ** 2 < (0.02 + 0.08 * radius) ** 2
        image = torch.where(disc, 0.5 * image + 0.5 * bright, image)
    return (image + 0.05 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
