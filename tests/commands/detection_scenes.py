"""Detectors that were never trained, and annotated images in COCO's layout on which they find something."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

import botformer
from botformer.create import create_detection_task
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import DetectionImages, DetectionRecipe, Model
from tests.data.detection.coco_files import CATEGORIES, annotation, compressed, content, image, write

KNOWN = sorted((record["id"], record["name"]) for record in CATEGORIES)
SIZES = ((70, 50), (96, 64), (130, 90), (64, 64), (50, 80), (90, 90), (110, 40))
"""(width, height) of the images; some are larger than the canvas of 96 px."""
ODD = "größe 6.png"


def write_scenes(root: Path, network: Path) -> Path:
    """A data set with the one split `validation`: an odd number of images of noise, in which six of the things that
    `network` finds are declared to be there, moved by a pixel; one is a crowd. The last image is empty.

    Returns the annotation file.
    """
    images, annotations = [], []
    for number, (width, height) in enumerate(SIZES, 11):
        more = {} if number == 12 else {"stain": ("grey", "colour")[number % 2]}
        images.append(image(number, ODD if number == 16 else "", width, height, **more))
    file = write(root, content(images, []), "instances_val.json", "val")
    detector = botformer.load(network).model
    for record in images[:-1]:
        pixels = np.array(Image.open(root / "val" / record["file_name"]))
        (found,) = detector([torch.from_numpy(pixels).permute(2, 0, 1) / 255])
        large = [place for place, mask in enumerate(found["masks"]) if coco_mask.area(mask) > 60]
        for count, place in enumerate(large[:12:2]):
            mask = np.roll(coco_mask.decode(found["masks"][place]), 1, axis=count % 2)
            runs = compressed(mask)
            annotations.append(
                annotation(
                    len(annotations) + 1,
                    record["id"],
                    coco_mask.toBbox(runs).tolist(),
                    category_id=KNOWN[int(found["labels"][place]) - 1][0],
                    area=float(mask.sum()),
                    iscrowd=int(count == 5 and record["id"] == 14),
                    segmentation=runs,
                )
            )
    rewrite(file, annotations=annotations)
    return file


def rewrite(file: Path, **parts: Any) -> None:
    """Put other parts into an annotation file."""
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | parts), encoding="utf-8")


def save_detector(file: Path, kind: Any = "mask_rcnn", score_threshold: float = 0.0) -> Path:
    """A detector of the categories `KNOWN`, as one .safetensors file."""
    torch.manual_seed(0)
    recipe = DetectionRecipe(
        detector=kind,
        model=Model("botnet_nano", zero_gamma=False),
        images=DetectionImages(size=96),
        settings=Settings(
            levels=("p2", "p3", "p4", "p5"), fpn_channels=16, anchor_sizes=(14.0, 20.0, 26.0, 36.0),
            rpn_pre_nms_top_n_test=300, rpn_post_nms_top_n=300, box_channels=32, mask_convolutions=1, mask_channels=16,
            score_threshold=score_threshold,
        ),
    )  # fmt: skip
    task = create_detection_task(recipe, KNOWN)
    with torch.no_grad():
        # Scores far apart, which rounding cannot put into another order, and masks that fill their boxes for the most.
        task.model.box_head.predictor.cls_score.weight.mul_(100)
        if task.model.mask_head is not None:
            task.model.mask_head.logits.bias.fill_(1.0)
    botformer.save(task.model, task.model_config(), file)
    return file
