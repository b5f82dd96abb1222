"""The whole Mask R-CNN training step, ResNet-50 against BoTNet-50 under the same detector; and the loader alone."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.timing import Call
from botformer.create import create_detector
from botformer.data.detection.batches import detection_training_batches
from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.detection.layouts import open_detection_datasets
from botformer.recipes import find_recipe
from botformer.recipes.schema import DetectionImages, DetectionRecipe

CLASSES, OBJECTS = 80, 10  # an image of COCO has seven objects on the average
# (backbones, image px, batch)
FULL = (("resnet50", "botnet50"), 1024)
TINY = (("resnet_nano", "botnet_nano"), 128)
BATCH = {"cpu": 1, "cuda": 4}
SETS = 3
IMAGES, IMAGE_PX = 24, (480, 640)  # COCO's usual height and width
LOADED = "coco_botnet50_36"  # the recipe whose images the loader makes


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Losses, backward and a step of SGD with momentum, bfloat16 on a GPU; and batches from files, in one process."""
    names, image_px = TINY if quick else FULL
    batch = 1 if quick else BATCH[device.type]
    yield Case(
        {"px": image_px, "batch": batch, "mode": "training step"},
        [
            Implementation(f"Mask R-CNN, {name}", lambda name=name: training_step(name, image_px, batch, device))
            for name in names
        ],
    )
    recipe = find_recipe(LOADED)
    assert isinstance(recipe, DetectionRecipe)
    images = DetectionImages(size=TINY[1]) if quick else recipe.images
    yield Case(
        {"px": images.size, "batch": 4, "mode": "loader"},
        [Implementation(f"loader, one process, {LOADED}", lambda: loading(images, batch=4))],
    )


def loading(images: DetectionImages, batch: int) -> Call:
    """Reads, decodes, flips, scales and crops the next images of a training set; returns the canvases."""
    folder = tempfile.TemporaryDirectory()
    _write_images(Path(folder.name))
    training, _ = open_detection_datasets(folder.name)
    batches = detection_training_batches(training, images, batch, seed=0, workers=0).starting_at(0)

    def call(number: int, held: Any = folder) -> Tensor:  # the images live as long as the call
        return next(batches)["images"]

    return call


def _write_images(folder: Path) -> None:
    """JPEGs of smooth noise with rectangles for objects, in COCO's layout; two for validation."""
    rng, category = np.random.default_rng(0), Category(1, "rectangle")
    for split, images in (("train2017", IMAGES), ("val2017", 2)):
        writer = CocoWriter([category])
        (folder / split).mkdir()
        for number in range(images):
            coarse = rng.integers(0, 256, (IMAGE_PX[0] // 16, IMAGE_PX[1] // 16, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((IMAGE_PX[1], IMAGE_PX[0]), Image.Resampling.BICUBIC)
            image.save(folder / split / f"{number}.jpg")
            writer.add_image(f"{number}.jpg", *IMAGE_PX)
            for _ in range(OBJECTS):
                mask = np.zeros(IMAGE_PX, dtype=bool)
                y, x = rng.integers(0, 300), rng.integers(0, 400)
                mask[y : y + rng.integers(20, 160), x : x + rng.integers(20, 200)] = True
                writer.add_object(mask, category)
        writer.save(folder / "annotations" / f"instances_{split}.json")


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
