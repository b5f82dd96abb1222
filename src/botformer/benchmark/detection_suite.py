"""The whole Mask R-CNN training step: ResNet-50 against BoTNet-50 under the same detector."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from botformer.benchmark.contest import Case, Contestant
from botformer.benchmark.timing import Call
from botformer.create import create_detector

CLASSES, OBJECTS = 80, 10  # a picture of COCO has seven objects on the average
# (backbones, image px, batch)
FULL = (("resnet50", "botnet50"), 1024)
TINY = (("resnet_nano", "botnet_nano"), 128)
BATCH = {"cpu": 1, "cuda": 4}
SETS = 3


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """One case: losses, backward and a step of SGD with momentum; bfloat16 on a GPU."""
    names, image_px = TINY if quick else FULL
    batch = 1 if quick else BATCH[device.type]
    yield Case(
        {"px": image_px, "batch": batch, "objects": OBJECTS},
        [
            Contestant(f"Mask R-CNN, {name}", lambda name=name: training_step(name, image_px, batch, device))
            for name in names
        ],
    )


def training_step(backbone: str, image_px: int, batch: int, device: torch.device) -> Call:
    """Returns the sum of the losses."""
    sets = [_batch(image_px, batch, device) for _ in range(SETS)]
    detector: Any = create_detector("mask_rcnn", backbone, CLASSES, image_px)
    detector = detector.train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        [parameter for parameter in detector.parameters() if parameter.requires_grad], lr=1e-4, momentum=0.9
    )

    def call(number: int) -> Tensor:
        images, targets = sets[number % SETS]
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            loss = torch.stack([loss.float() for loss in detector.losses(images, targets).values()]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # here, so that nothing is held between the calls
        return loss.detach()

    return call


def _batch(image_px: int, batch: int, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Noise (3, px, px) in 0..1 with rectangles for objects, as torchvision's targets."""
    images = [torch.rand(3, image_px, image_px, device=device) for _ in range(batch)]
    return images, [_rectangles(image_px, device) for _ in range(batch)]


def _rectangles(image_px: int, device: torch.device) -> dict[str, Tensor]:
    corners = torch.rand(OBJECTS, 2) * image_px * 0.7
    sides = (0.05 + 0.2 * torch.rand(OBJECTS, 2)) * image_px
    boxes = torch.cat([corners, corners + sides], 1).round()
    masks = torch.zeros(OBJECTS, image_px, image_px, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    labels = torch.randint(1, CLASSES + 1, (OBJECTS,))
    return {"boxes": boxes.to(device), "labels": labels.to(device), "masks": masks.to(device)}
