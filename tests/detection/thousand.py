"""A training step on one 1024 px image with a thousand objects, at the paper's settings; prints its peak memory.

Run as a program, so that nothing else has used memory before: the peak is that of the whole process.
"""

import resource
import time

import torch
from torch import nn

from botformer.detection import build_detector


class StubBackbone(nn.Module):
    """Maps of a ResNet-50's sizes at next to no cost, so that what remains is the detector's own."""

    channels = {"c2": 256, "c3": 512, "c4": 1024, "c5": 2048}  # noqa: RUF012
    strides = {"c2": 4, "c3": 8, "c4": 16, "c5": 32}  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        grey = images.mean(1, keepdim=True) * self.scale
        return {
            name: nn.functional.avg_pool2d(grey, stride).expand(-1, self.channels[name], -1, -1)
            for name, stride in self.strides.items()
        }


def thousand_objects(side=1024):
    """Dense bool masks (1000, side, side), a gibibyte of them: what torchvision's contract asks for."""
    places = torch.arange(1000)
    corner = torch.stack([places % 32, places // 32], 1).float() * 32
    boxes = torch.cat([corner + 2, corner + torch.tensor([28.0, 24.0])], 1)
    masks = torch.zeros(1000, side, side, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return {"boxes": boxes, "labels": places % 80 + 1, "masks": masks}


if __name__ == "__main__":
    torch.manual_seed(0)
    detector = build_detector("mask_rcnn", StubBackbone(), num_classes=80, image_size=1024)
    image, target = torch.rand(3, 1024, 1024), thousand_objects()
    start = time.perf_counter()
    losses = detector.losses([image], [target])
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values()), losses
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{peak_gib:.3f} GiB, {time.perf_counter() - start:.1f} s")
