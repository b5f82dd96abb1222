"""Test-time augmentation: a detector sees an image and its mirror image, and what it thinks of both is averaged.

The proposals of both are put together, and the heads look at each of them in both images: probabilities of classes,
box deltas, masks and heat maps are means over the two (as detectron2 does it for masks). So the mirror image of an
image gives the mirror image of its detections.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from botformer.detection.padding import PaddedImages


@dataclass(frozen=True)
class Flip:
    """Detect on mirror images too."""

    keypoints: tuple[int, ...] = ()
    """For each key point the place of the one that stands there in a mirror image; most often itself."""


def mirrored(images: PaddedImages) -> PaddedImages:
    """Each image left to right, still in the top left corner of its canvas."""
    pixels = torch.zeros_like(images.pixels)
    for image, canvas, (height, width) in zip(images.pixels, pixels, images.sizes, strict=True):
        canvas[:, :height, :width] = image[:, :height, :width].flip(-1)
    return PaddedImages(pixels, images.sizes)


def mirror_boxes(boxes_xyxy: Tensor, width: int) -> Tensor:
    """Boxes (n, 4) of an image of this width -> where they lie in its mirror image."""
    x1, y1, x2, y2 = boxes_xyxy.unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], 1)


def mirror_deltas(deltas: Tensor) -> Tensor:
    """What a `BoxCoder` says of mirrored boxes, (..., 4) -> what it would say of the boxes: x changes its sign."""
    return deltas * deltas.new_tensor([-1.0, 1.0, 1.0, 1.0])
