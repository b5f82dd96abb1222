"""Mask R-CNN with ResNet-50, with BoTNet-50, and torchvision's: training, inference; and the data loader alone."""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate.utils import send_to_device
from PIL import Image
from torch import Tensor, nn

from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.model_steps import autocast, sgd_step
from botformer.benchmark.timing import Call
from botformer.create import create_detector
from botformer.data.detection.batches import DetectionBatch, detection_training_batches
from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.detection.layouts import open_detection_datasets
from botformer.detection.masks import paste_window
from botformer.detection.task import DetectionTask
from botformer.recipes import find_recipe
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import DetectionImages, DetectionRecipe

CLASSES, OBJECTS = 80, 10  # an image of COCO has seven objects on average
FULL = ("resnet50", "botnet50")
TINY = ("resnet_nano", "botnet_nano")
SIZES_PX = {"cpu": (1024,), "cuda": (1024, 800)}
TINY_PX = 128
BATCH = {"cpu": 1, "cuda": 4}
INPUTS = 3
IMAGES, IMAGE_PX = 24, (480, 640)  # COCO's usual height and width
RECIPE = "coco_botnet50_36"  # whose images the loader makes
TORCHVISION = "torchvision's Mask R-CNN, resnet50"

Entry = Literal["batch", "losses"]
ENTRIES: dict[Entry, str] = {"batch": "", "losses": ", detector.losses"}
"""Where the images enter, and the end of the implementation's name: `DetectionTask` takes the loader's batch, as in
training; `detector.losses` takes a list of images with torchvision's targets."""


@dataclass(frozen=True)
class Work:
    """What every detector of a case is given to do."""

    images: DetectionImages
    batch: int
    settings: Settings = field(default_factory=Settings)
    """The numbers of proposals, samples and detections hold for torchvision's detector, too."""

    def inputs(self, device: torch.device) -> list[Any]:
        """Batches as the loader gives them in training."""
        batches = _training_batches(self.images, self.batch)
        return [send_to_device(next(batches), device) for _ in range(INPUTS)]

    def canvases(self, device: torch.device) -> list[list[Tensor]]:
        """The images of those batches, (3, size, size) floats in 0..1, with their padding as a part of the image."""
        return [_as_torchvision(loaded, canvas=True)[0] for loaded in self.inputs(device)]


TINY_WORK = Work(
    DetectionImages(size=TINY_PX),
    1,
    Settings(
        rpn_post_nms_top_n=50,
        roi_samples=16,
        max_detections=5,
        fpn_channels=32,
        box_channels=32,
        mask_channels=16,
        mask_convolutions=1,
    ),
)


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Losses, backward pass and a step of SGD; inference; bfloat16 on a GPU. Batches read from files in one process."""
    recipe = find_recipe(RECIPE)
    assert isinstance(recipe, DetectionRecipe)
    works = [Work(replace(recipe.images, size=size), BATCH[device.type]) for size in SIZES_PX[device.type]]
    for number, work in enumerate([TINY_WORK] if quick else works):
        yield training_case(TINY if quick else FULL, work, device)
        yield inference_case(TINY if quick else FULL, work, device)
        if number == 0:
            yield Case(
                {"px": work.images.size, "batch": 4, "mode": "loader"},
                [Implementation(f"loader, one process, {RECIPE}", lambda work=work: loading(work.images, batch=4))],
            )


def training_case(backbones: tuple[str, ...], work: Work, device: torch.device) -> Case:
    ours = [
        Implementation(
            f"Mask R-CNN, {name}{suffix}",
            lambda entry=entry, name=name: training_step(entry, name, work, device),
            output=f"losses of {name}",
        )
        for entry, suffix in ENTRIES.items()
        for name in backbones
    ]
    torchvision = Implementation(TORCHVISION, lambda: torchvision_training_step(work, device), third_party=True)
    return Case(
        {"px": work.images.size, "batch": work.batch, "mode": "training step"},
        [*ours, torchvision],
        tolerance=0.02 if device.type == "cuda" else 1e-4,
    )


def inference_case(backbones: tuple[str, ...], work: Work, device: torch.device) -> Case:
    """Images (3, size, size) -> boxes, labels, scores, and masks of the size of the image, in torchvision's form."""
    ours = [
        Implementation(
            f"Mask R-CNN, {name}",
            lambda name=name: inference(our_detector(name, work).as_torchvision(), work, device),
        )
        for name in backbones
    ]
    torchvision = Implementation(
        TORCHVISION, lambda: inference(torchvision_detector(work), work, device), third_party=True
    )
    return Case({"px": work.images.size, "batch": work.batch, "mode": "inference"}, [*ours, torchvision])


def training_step(entry: Entry, backbone: str, work: Work, device: torch.device) -> Call:
    """A call that returns the losses (4,) but `loss_mask`: `_as_torchvision` changes the borders of masks a little."""
    detector = our_detector(backbone, work).train().to(device, memory_format=torch.channels_last)
    inputs: list[tuple[Any, ...]] = [(loaded,) for loaded in work.inputs(device)]
    if entry == "losses":
        inputs, losses = [_as_torchvision(loaded) for (loaded,) in inputs], detector.losses
    else:
        losses = DetectionTask(detector, {}, [(label, str(label)) for label in range(1, CLASSES + 1)], set())

    def loss_and_losses(number: int) -> tuple[Tensor, Tensor]:
        by_name = losses(*inputs[number % INPUTS])
        compared = torch.stack([loss.float() for name, loss in by_name.items() if name != "loss_mask"])
        return compared.sum() + by_name["loss_mask"].float(), compared

    return sgd_step(loss_and_losses, detector, device)


def torchvision_training_step(work: Work, device: torch.device) -> Call:
    """A call that returns the losses (5,). The images fill the canvas, as torchvision would enlarge smaller ones."""
    detector = torchvision_detector(work).train().to(device, memory_format=torch.channels_last)
    inputs = [_as_torchvision(loaded, canvas=True) for loaded in work.inputs(device)]

    def loss_and_losses(number: int) -> tuple[Tensor, Tensor]:
        losses = torch.stack([loss.float() for loss in detector(*inputs[number % INPUTS]).values()])
        return losses.sum(), losses

    return sgd_step(loss_and_losses, detector, device)


def inference(detector: Any, work: Work, device: torch.device) -> Call:
    """A call that returns boxes, scores and masks of every image."""
    detector = detector.eval().to(device, memory_format=torch.channels_last)
    inputs = work.canvases(device)

    def call(number: int) -> list[Tensor]:
        with torch.inference_mode(), autocast(device):
            found = detector(inputs[number % INPUTS])
        return [one[name] for one in found for name in ("boxes", "scores", "masks")]

    return call


def our_detector(backbone: str, work: Work) -> Any:
    settings = {each.name: getattr(work.settings, each.name) for each in fields(work.settings)}
    detector: Any = create_detector("mask_rcnn", backbone, CLASSES, work.images.size, **settings)
    _detect_first_class(detector.box_head.predictor.cls_score)
    return detector


def torchvision_detector(work: Work) -> Any:
    """With random weights, gamma zeroed like ours, and images that are not scaled."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn
    from torchvision.models.resnet import Bottleneck

    settings = work.settings
    detector: Any = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES + 1,
        min_size=work.images.size,
        max_size=work.images.size,
        rpn_pre_nms_top_n_train=settings.rpn_pre_nms_top_n,
        rpn_pre_nms_top_n_test=settings.rpn_pre_nms_top_n_test,
        rpn_post_nms_top_n_train=settings.rpn_post_nms_top_n,
        rpn_post_nms_top_n_test=settings.rpn_post_nms_top_n,
        box_batch_size_per_image=settings.roi_samples,
        box_detections_per_img=settings.max_detections,
    )
    blocks: list[Any] = [module for module in detector.modules() if isinstance(module, Bottleneck)]
    for block in blocks:
        nn.init.zeros_(block.bn3.weight)
    _detect_first_class(detector.roi_heads.box_predictor.cls_score)
    return detector


def _detect_first_class(cls_score: nn.Linear) -> None:
    """Every proposal is about one half likely to be of the first class, so that each detector finds as much as it may.

    With random weights no class of 80 would reach the threshold, and the mask head would have nothing to do.
    """
    nn.init.normal_(cls_score.weight, std=1e-3)
    nn.init.zeros_(cls_score.bias)
    nn.init.constant_(cls_score.bias[1:2], math.log(CLASSES))


def loading(images: DetectionImages, batch: int) -> Call:
    """A call that reads, decodes, flips, scales and crops the next images of a training set, and returns them."""
    batches = _training_batches(images, batch)
    return lambda number: next(batches)["images"]


def _training_batches(images: DetectionImages, batch: int) -> Iterator[DetectionBatch]:
    """As the loader gives them in training."""
    training, _ = open_detection_datasets(_folder().name)
    return detection_training_batches(training, images, batch, seed=0, workers=0).starting_at(0)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Images and annotations; they exist as long as the process."""
    folder = tempfile.TemporaryDirectory()
    _write_images(Path(folder.name))
    return folder


def _as_torchvision(batch: DetectionBatch, canvas: bool = False) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The same images (3, height, width) in 0..1, with torchvision's targets: whole masks.

    Args:
        canvas: with their padding, as images of the size of the canvas; otherwise without.
    """
    images, targets = [], []
    for padded, target in zip(batch["images"], batch["targets"], strict=True):
        height, width = padded.shape[1:] if canvas else target["size"]
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
