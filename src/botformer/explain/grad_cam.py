"""Grad-CAM (Selvaraju et al. 2017): which cells of a feature map raise a score.

The gradient is taken of the part of the network after the map, on a copy of the map: no parameter gets a gradient, and
nothing of the network is changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from botformer.backbone.resnet import Classifier
from botformer.detection import Detector
from botformer.errors import InputError
from botformer.explain.forward_pass import CellMap, c5_stride, evaluation_mode, feature_maps, image_cells, padded


@dataclass(frozen=True)
class DetectionCam:
    """Grad-CAM of a detection."""

    cam: CellMap
    """0 where the detection is not read from."""
    level: str
    """The level of the pyramid that the detection is read from, such as "p2"."""
    proposal_xyxy: tuple[float, float, float, float]
    """The box that is read, which the detector then refined, in pixels of the network's input."""


def grad_cam(model: Classifier, pixels: Tensor, class_index: int) -> CellMap:
    """Which cells of c5 raise the logit of a class, above 0 everywhere.

    ReLU(sum_k w_k A_k), A the map and w_k the mean over its cells of the logit's gradient for channel k.

    Args:
        model: a classifier, in any mode and on any device; nothing of it is changed.
        pixels: (C, h, w) uint8 or floats in 0..1, as the network sees it (see `see`).
        class_index: from 0.

    Raises:
        InputError: no such class, or an image that does not fit the network.
    """
    classes = model.fc.out_features
    if not 0 <= class_index < classes:
        raise InputError(f"class {class_index} does not exist; the network has {classes} classes, counted from 0")
    with evaluation_mode(model):
        c5 = feature_maps(model, pixels)["c5"]
        # What `Classifier.forward` does after the stages.
        gradient = _gradient(c5, lambda x: model.fc(model.dropout(model.avgpool(x).flatten(1)))[0, class_index])
    cam = (gradient.mean((2, 3), keepdim=True) * c5).sum(1)[0].relu()
    return _cell_map(cam, c5_stride(model))


def grad_cam_of_detection(model: Detector, pixels: Tensor, box_xyxy: Sequence[float], label: int) -> DetectionCam:
    """Which cells of the pyramid raise the score of a detection, on the level that it is read from.

    As `grad_cam`, of log p / (1 - p), which grows with the score p and does not saturate; the mean is over the cells
    that the box head reads, and the others, which it does not see, are 0.

    Args:
        model: a detector, in any mode and on any device; nothing of it is changed.
        pixels: (C, h, w) uint8 or floats in 0..1, as the network sees it (see `see`).
        box_xyxy: of the detection, in pixels of `pixels`.
        label: of the detection, from 1.

    Raises:
        InputError: no such label, no detection of that label there, or an image that does not fit the network.
    """
    if not 1 <= label <= model.num_classes:
        raise InputError(f"label {label} does not exist; the detector's are 1 to {model.num_classes}")
    with evaluation_mode(model):
        images = padded(model, pixels)
        pyramid = model.fpn(feature_maps(model, pixels))
        (proposals,) = model.rpn.propose(model.rpn(pyramid), images.sizes, model.settings.rpn_pre_nms_top_n_test)
        proposal = _proposal_of(model, pyramid, proposals, images.sizes[0], box_xyxy, label)
        index = int(model.box_head.pooling.levels(proposal[None])[0])
        level = list(pyramid)[index]

        def log_odds(feature_map: Tensor) -> Tensor:
            logits, _ = model.box_head(pyramid | {level: feature_map}, [proposal[None]])
            others = torch.cat([logits[0, :label], logits[0, label + 1 :]])
            return logits[0, label] - others.logsumexp(0)

        feature_map = pyramid[level]
        gradient = _gradient(feature_map, log_odds)
    read = (gradient != 0).any(1, keepdim=True)
    weights = (gradient * read).sum((2, 3), keepdim=True) / read.sum().clamp(min=1)
    cam = ((weights * feature_map).sum(1, keepdim=True) * read)[0, 0].relu()
    stride = model.fpn.strides[index]
    height, width = image_cells(pixels, stride)
    x1, y1, x2, y2 = proposal.tolist()
    return DetectionCam(_cell_map(cam[:height, :width], stride), level, (x1, y1, x2, y2))


def _gradient(feature_map: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Of the score of a map."""
    with torch.enable_grad():
        leaf = feature_map.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(score(leaf), leaf)
    return gradient


def _proposal_of(
    model: Detector,
    pyramid: dict[str, Tensor],
    proposals: Tensor,
    size: tuple[int, int],
    box_xyxy: Sequence[float],
    label: int,
) -> Tensor:
    """The proposal (4,) whose box of this label is the detection's."""
    wanted = torch.as_tensor(box_xyxy, dtype=proposals.dtype, device=proposals.device)
    boxes = proposals
    if len(proposals):
        _, deltas = model.box_head(pyramid, [proposals])
        boxes = clip_boxes_to_image(model.box_head.coder.decode(deltas[:, label], proposals), size)
    distance = (boxes - wanted).abs().amax(1)
    if not len(distance) or not float(distance.min()) <= 2:
        raise InputError(
            f"the detector finds no object of label {label} at {[round(float(side), 1) for side in box_xyxy]}; give "
            "the box of one of its detections, in pixels of the image as the network sees it"
        )
    return proposals[distance.argmin()]


def _cell_map(cam: Tensor, stride_px: int) -> CellMap:
    return CellMap(cam.detach().to(torch.promote_types(cam.dtype, torch.float32)).cpu().numpy(), stride_px)
