"""A training step of Mask R-CNN with ResNet-50 and with BoTNet-50, and the data loader alone."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate.utils import send_to_device
from PIL import Image
from torch import Tensor

from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.model_steps import sgd_step
from botformer.benchmark.timing import Call
from botformer.create import create_detector
from botformer.data.detection.batches import DetectionBatch, detection_training_batches
from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.detection.layouts import open_detection_datasets
from botformer.detection.masks import paste_window
from botformer.detection.task import DetectionTask
from botformer.recipes import find_recipe
from botformer.recipes.schema import DetectionImages, DetectionRecipe

CLASSES, OBJECTS = 80, 10  # an image of COCO has seven objects on average
FULL = ("resnet50", "botnet50")
TINY = ("resnet_nano", "botnet_nano")
TINY_PX = 128
BATCH = {"cpu": 1, "cuda": 4}
INPUTS = 3
IMAGES, IMAGE_PX = 24, (480, 640)  # COCO's usual height and width
RECIPE = "coco_botnet50_36"  # whose images the loader makes

Entry = Literal["batch", "losses"]
ENTRIES: dict[Entry, str] = {"batch": "", "losses": ", detector.losses"}
"""Where the images enter, and the end of the implementation's name: `DetectionTask` takes the loader's batch, as in
training; `detector.losses` takes a list of images with torchvision's targets."""


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Losses, backward pass and a step of SGD, bfloat16 on a GPU; and batches read from files in one process."""
    recipe = find_recipe(RECIPE)
    assert isinstance(recipe, DetectionRecipe)
    images = DetectionImages(size=TINY_PX) if quick else recipe.images
    batch = 1 if quick else BATCH[device.type]
    yield Case(
        {"px": images.size, "batch": batch, "mode": "training step"},
        [
            Implementation(
                f"Mask R-CNN, {name}{suffix}",
                lambda entry=entry, name=name: training_step(entry, name, images, batch, device),
                output=f"losses of {name}",
            )
            for entry, suffix in ENTRIES.items()
            for name in (TINY if quick else FULL)
        ],
        tolerance=0.02 if device.type == "cuda" else 1e-4,
    )
    yield Case(
        {"px": images.size, "batch": 4, "mode": "loader"},
        [Implementation(f"loader, one process, {RECIPE}", lambda: loading(images, batch=4))],
    )


def training_step(entry: Entry, backbone: str, images: DetectionImages, batch: int, device: torch.device) -> Call:
    """A call that returns the losses (4,) but `loss_mask`: `_as_torchvision` changes the borders of masks a little."""
    detector: Any = create_detector("mask_rcnn", backbone, CLASSES, images.size)
    detector = detector.train().to(device, memory_format=torch.channels_last)
    inputs: list[tuple[Any, ...]] = [(send_to_device(loaded, device),) for loaded in _batches(images, batch, INPUTS)]
    if entry == "losses":
        inputs, losses = [_as_torchvision(loaded) for (loaded,) in inputs], detector.losses
    else:
        losses = DetectionTask(detector, {}, [(label, str(label)) for label in range(1, CLASSES + 1)], set())

    def loss_and_losses(number: int) -> tuple[Tensor, Tensor]:
        by_name = losses(*inputs[number % INPUTS])
        compared = torch.stack([loss.float() for name, loss in by_name.items() if name != "loss_mask"])
        return compared.sum() + by_name["loss_mask"].float(), compared

    return sgd_step(loss_and_losses, detector, device)


def loading(images: DetectionImages, batch: int) -> Call:
    """A call that reads, decodes, flips, scales and crops the next images of a training set, and returns them."""
    batches = _training_batches(images, batch)
    return lambda number: next(batches)["images"]


def _batches(images: DetectionImages, batch: int, count: int) -> list[DetectionBatch]:
    batches = _training_batches(images, batch)
    return [next(batches) for _ in range(count)]


def _training_batches(images: DetectionImages, batch: int) -> Iterator[DetectionBatch]:
    """As the loader gives them in training."""
    with tempfile.TemporaryDirectory() as folder:  # exists as long as the iterator
        _write_images(Path(folder))
        training, _ = open_detection_datasets(folder)
        yield from detection_training_batches(training, images, batch, seed=0, workers=0).starting_at(0)


def _as_torchvision(batch: DetectionBatch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The same images (3, height, width) in 0..1 without padding, with torchvision's targets: whole masks."""
    images, targets = [], []
    for padded, target in zip(batch["images"], batch["targets"], strict=True):
        height, width = target["size"]
        images.append(padded[:, :height, :width].float() / 255)
        masks = padded.new_zeros(len(target["boxes"]), height, width)
        for mask, crop, box in zip(masks, target["mask_crops"], target["boxes"], strict=True):
            window, (top, left) = paste_window(crop, box, (height, width))
            mask[top : top + window.shape[0], left : left + window.shape[1]] = window >= 0.5
        targets.append({"boxes": target["boxes"], "labels": target["labels"], "masks": masks})
    return images, targets


def _write_images(folder: Path) -> None:
    """JPEGs of smooth noise with rectangles as objects, in COCO's layout; two for validation."""
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
