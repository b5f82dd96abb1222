"""Small detectors and images with known objects."""

import torch

from botformer import create_backbone
from botformer.detection import Settings, build_detector

SMALL = Settings(
    levels=("p2", "p3", "p4", "p5"),
    fpn_channels=32,
    norm_momentum=0.1,
    anchor_sizes=(12.0, 18.0, 26.0, 36.0),
    roi_samples=64,
    box_channels=64,
    mask_convolutions=2,
    mask_channels=32,
    keypoints=3,
    keypoint_convolutions=2,
    keypoint_channels=32,
)


def small_detector(kind="mask_rcnn", image_size=64, settings=SMALL, seed=0, **backbone_options):
    torch.manual_seed(seed)
    backbone = create_backbone("botnet_mini", image_size=image_size, zero_gamma=False, **backbone_options)
    return build_detector(kind, backbone, 2, image_size, settings)


def ellipse(height, width, box):
    x1, y1, x2, y2 = box
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2 <= 1


def rectangle(height, width, box):
    x1, y1, x2, y2 = box
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


SHAPES = {1: ellipse, 2: rectangle}


def scene(height, width, objects, seed=0):
    """Bright shapes on dark noise; objects: (label, box). Returns image, target."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.2 * torch.rand(3, height, width, generator=generator)
    masks = torch.zeros(len(objects), height, width, dtype=torch.bool)
    for index, (label, box) in enumerate(objects):
        masks[index] = SHAPES[label](height, width, box)
        image[:, masks[index]] += 0.6
    boxes = torch.tensor([box for _, box in objects], dtype=torch.float32).reshape(-1, 4)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    keypoints = torch.stack([torch.cat([p, torch.ones(len(p), 1)], 1) for p in (middle, middle - 2, middle + 2)], 1)
    labels = torch.tensor([label for label, _ in objects], dtype=torch.int64)
    return image, {"boxes": boxes, "labels": labels, "masks": masks, "keypoints": keypoints.reshape(-1, 3, 3)}


def two_scenes():
    first = scene(64, 64, [(1, (6, 8, 30, 28)), (2, (34, 30, 60, 56))])
    second = scene(48, 60, [(2, (5, 6, 25, 40)), (1, (32, 12, 56, 34))], seed=1)
    images, targets = zip(first, second, strict=True)
    return list(images), list(targets)


def train(detector, images, targets, steps, learning_rate=2e-3):
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    detector.train()
    for _ in range(steps):
        loss = sum(detector.losses(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return detector.eval()
