"""From a COCO folder through the training loop to average precision in pixels of the files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import botformer
from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.transforms import DetectionImages
from botformer.detection.padding import PaddedImages
from botformer.detection.task import DetectionTask
from botformer.recipes.schema import Optimizer, Recipe, Run, Schedule
from botformer.training.checkpoint import checkpoint_folder, read_state
from botformer.training.loop import fit
from tests.data.detection.coco_files import annotation, compressed, disc

SETTINGS = dict(
    fpn_channels=32, box_channels=64, mask_channels=32, mask_convolutions=1, norm_momentum=0.1, roi_samples=32,
    anchor_sizes=(12.0, 16.0, 24.0, 32.0, 48.0),
)  # fmt: skip
IMAGES = DetectionImages(size=64, scale_jitter=(0.9, 1.1))
CATEGORIES = [{"id": 3, "name": "moon"}, {"id": 8, "name": "hole"}]


def write_discs(root, split, count, seed):
    """Bright and dark discs on grey noise, 80x120 px (so that the canvas of 64 px scales them), as a COCO folder."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    (root / split).mkdir(parents=True)
    for number in range(1, count + 1):
        pixels = rng.normal(120, 12, (80, 120))
        for place in rng.permutation(3)[: rng.integers(1, 4)]:
            kind, radius = int(rng.integers(2)), float(rng.uniform(10, 16))
            mask = disc(80, 120, 20 + 40 * place, float(rng.uniform(20, 60)), radius)
            pixels[mask] += 90 if kind == 0 else -90
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            more = {"category_id": CATEGORIES[kind]["id"], "segmentation": compressed(mask), "area": int(mask.sum())}
            annotations.append(annotation(len(annotations) + 1, number, [float(side) for side in box], **more))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 80})
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return open_coco(path, root / split)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mask_rcnn"])
def test_a_small_mask_r_cnn_learns_discs_it_has_not_seen(kind, tmp_path):
    train = write_discs(tmp_path, "train", 48, seed=0)
    unseen = write_discs(tmp_path, "val", 12, seed=1)
    torch.manual_seed(0)
    detector = botformer.create_detector(kind, "botnet_mini", 2, 64, backbone_options={"zero_gamma": False}, **SETTINGS)
    categories = [(category.id, category.name) for category in train.categories]
    task = DetectionTask(detector, {"categories": categories}, categories, set())
    recipe = Recipe(
        optimizer=Optimizer("adamw", learning_rate=4e-3, weight_decay=0.05, clip_norm=5.0),
        schedule=Schedule(epochs=20, warmup_epochs=1.0),
        run=replace(
            Run(), batch_size=8, precision="float32", workers=0, threads=1, evaluate_every=20, checkpoint_every=20
        ),
    )
    metrics = fit(
        task,
        detection_training_batches(train, IMAGES, 8, seed=0, workers=0),
        detection_evaluation_batches(unseen, IMAGES, 4, workers=0),
        recipe,
        tmp_path / "run",
    )
    assert metrics["box_AP50"] > 0.6
    assert metrics["mask_AP50"] > 0.6
    assert metrics["images"] == 12
    folder = checkpoint_folder(tmp_path / "run")
    assert read_state(folder).model_config == {"categories": [[3, "moon"], [8, "hole"]]}
    assert read_state(folder).best_value == metrics["mask_AP"]


def test_objects_come_in_pixels_of_the_file(tmp_path):
    """The same detections reported for a file of twice the size have boxes and masks of twice the size."""
    torch.manual_seed(0)
    detector = botformer.create_detector("mask_rcnn", "botnet_mini", 2, 64, score_threshold=0.0, **SETTINGS).eval()
    image = torch.rand(3, 40, 60)
    padded = PaddedImages(torch.nn.functional.pad(image, (0, 4, 0, 24))[None], [(40, 60)])
    (small,), (large,) = detector([image]), detector.padded_detections(padded, [(80, 120)])
    torch.testing.assert_close(large["boxes"], 2 * small["boxes"])
    assert torch.equal(large["scores"], small["scores"])
    assert {tuple(mask["size"]) for mask in large["masks"]} == {(80, 120)}
