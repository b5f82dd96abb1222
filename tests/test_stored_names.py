"""Files of older versions give what they gave when they were written. tests/fixtures/README.md says what they are."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

import botformer
from botformer import stored_names
from botformer.create.train_recipe import train_recipe
from botformer.data import resampling
from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.synthetic.nuclei_crops import read_nuclei
from botformer.detection import rcnn
from botformer.recipes import find_recipe
from botformer.recipes.detector_settings import SMALL
from botformer.recipes.schema import DetectionImages, Optimizer, Schedule
from botformer.training.run_log import read_metrics

FILES = Path(__file__).parent / "fixtures"
EXPECTED = load_file(FILES / "expected.safetensors")
IMAGE = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """What the runs were trained on: red and green squares, and scenes of a square and a bar."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 2)):
        for channel, name in enumerate(("red", "green")):
            (root / "classes" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (16, 16, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(root / "classes" / split / name / f"{number}.png")
    categories = [Category(3, "square"), Category(7, "bar")]
    for split, count in (("train", 4), ("val", 2)):
        (root / "scenes" / split).mkdir(parents=True)
        writer = CocoWriter(categories)
        for number in range(count):
            pixels, masks = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8), []
            for category, (height, width) in zip(categories, ((20, 20), (10, 34)), strict=True):
                y, x = rng.integers(0, 64 - height), rng.integers(0, 64 - width)
                mask = np.zeros((64, 64), dtype=bool)
                mask[y : y + height, x : x + width] = True
                pixels[mask] = 200
                masks.append((mask, category))
            Image.fromarray(pixels).save(root / "scenes" / split / f"{number}.png")
            writer.add_image(f"{number}.png", 64, 64)
            for mask, category in masks:
                writer.add_object(mask, category)
        writer.save(root / "scenes" / "annotations" / f"instances_{split}.json")
    return root


def assert_as_written(found, prefix, keys, rows=None):
    for key in keys:
        torch.testing.assert_close(found[key][:rows], EXPECTED[f"{prefix}_{key}"], rtol=1e-4, atol=1e-4)


def test_a_classifiers_run_gives_its_logits():
    model, config = botformer.load(FILES / "classifier_run")
    torch.testing.assert_close(model(IMAGE[None]), EXPECTED["logits"], rtol=1e-5, atol=1e-6)
    assert config["class_names"] == ["green", "red"]
    assert config["images"]["hflip"] is True


def test_a_detectors_run_gives_its_detections():
    model, config = botformer.load(FILES / "detector_run")
    assert_as_written(model([IMAGE])[0], "detector", ("boxes", "labels", "scores"))
    assert config["images"]["rot90"] is True
    assert config["settings"]["padding_mask"] is True
    assert config["settings"]["rpn_pre_nms_top_n"] == 60


def test_a_saved_keypoint_detector_gives_its_detections():
    model, _ = botformer.load(FILES / "keypoint_rcnn.safetensors")
    maps = []
    model.keypoint_head.register_forward_hook(lambda head, inputs, logits: maps.append(logits))
    (found,) = model([IMAGE])
    assert_as_written(found, "keypoint", ("boxes", "labels", "scores"), rows=20)
    # The network's heat maps are the same; when these points were written torchvision found the peaks.
    points, scores = heatmaps_to_keypoints(maps[0], found["boxes"])
    assert_as_written(
        {"keypoints": points, "keypoints_scores": scores}, "keypoint", ("keypoints", "keypoints_scores"), 20
    )


def test_the_networks_of_the_package_give_what_they_gave():
    grey, _ = read_nuclei()
    image = torch.from_numpy(grey[:256, :256].copy()).float().div(255).expand(3, -1, -1)
    (found,) = botformer.load("nuclei")[0]([image])
    assert_as_written(found, "nuclei", ("boxes", "labels", "scores"), rows=20)
    assert [mask["counts"] for mask in found["masks"][:5]] == json.loads((FILES / "expected.json").read_text())[
        "nuclei_masks"
    ]


def classifier_recipe():
    recipe = find_recipe("cifar10_mini")
    return replace(
        recipe,
        model=replace(recipe.model, name="botnet_nano"),
        images=replace(recipe.images, size=16),
        optimizer=Optimizer("sgd", learning_rate=0.05, weight_decay=5e-4),
        schedule=Schedule(epochs=2, warmup_epochs=0.5),
        run=replace(recipe.run, batch_size=4, workers=0, evaluate_every=1, keep=1, device="cpu"),
    )


def detector_recipe():
    recipe = find_recipe("nuclei_mini")
    settings = replace(
        SMALL,
        levels=("p3", "p4"),
        anchor_sizes=(16.0, 28.0),
        fpn_channels=8,
        box_channels=16,
        mask_channels=8,
        mask_convolutions=1,
        rpn_pre_nms_top_n=60,
        rpn_pre_nms_top_n_test=60,
        rpn_post_nms_top_n=30,
        roi_samples=16,
    )
    return replace(
        recipe,
        images=DetectionImages(size=64, scale_jitter=(0.9, 1.1), rot90=True, mask_crop=28),
        settings=settings,
        optimizer=Optimizer("momentum", learning_rate=0.02, ema=0.5, clip_norm=5.0),
        schedule=Schedule(epochs=2, warmup_epochs=0.5),
        run=replace(recipe.run, batch_size=2, workers=0, evaluate_every=1, checkpoint_every=1, keep=1, device="cpu"),
    )


@pytest.mark.parametrize(
    ("name", "recipe", "folder"),
    [("classifier_run", classifier_recipe, "classes"), ("detector_run", detector_recipe, "scenes")],
)
def test_a_run_is_continued_where_it_was_stopped(name, recipe, folder, data, tmp_path, monkeypatch):
    monkeypatch.setattr(resampling, "_is_vectorized", lambda: False)  # Pillow's pixels, as those of the old runs
    monkeypatch.setattr(rcnn, "_generators", lambda *_: None)  # and one generator for all draws of a step
    run = tmp_path / name
    shutil.copytree(FILES / name, run)
    train_recipe(recipe(), str(data / folder), run, "auto")
    weights = stored_names.tensors(load_file(run / "checkpoints" / "step-00000004" / "model.safetensors"))
    norms = stored_names.tensors(json.loads((FILES / "continued.json").read_text())[name])
    found = {key: float(weights[key].double().norm()) for key in norms}
    # Another processor adds in another order: 1.3e-4 of a norm layer's bias. Lost momentum is 0.2, a lost average 1e-2.
    assert found == pytest.approx(norms, rel=5e-4, abs=1e-7)
    records = read_metrics(run / "metrics.jsonl")
    assert (
        [record["images"] for record in records if record["kind"] == "evaluation"] == [4, 4]
        if folder == "classes"
        else [2, 2]
    )


def test_names_of_today_are_left_alone():
    tensors = {"backbone.conv1.weight": 1, "box_head.fc1.weight": 2, "fpn.lateral.c2.weight": 3}
    assert stored_names.tensors(tensors) == tensors
    foreign = {"boxes": 1, "masks.weight": 2}  # of somebody else's network, which has no pyramid
    assert stored_names.tensors(foreign) == foreign


def test_a_recipe_is_stored_without_what_its_row_says_about_itself():
    """Older files have it; it never made two recipes differ. A model config keeps its task."""
    old = {"source": "paper", "expect": "43.6", "cost": "days", "ours": ["model.weights"], "task": "detection"}
    settings = {"mask_crop": 28, "rpn_candidates": 60, "nms_iou": 0.5}
    new = {"rpn_pre_nms_top_n": 60, "nms_iou": 0.5}
    assert stored_names.recipe({**old, "run": {"seed": 3}, "settings": settings}) == {
        "run": {"seed": 3},
        "settings": new,
    }
    assert stored_names.model_config({"task": "detection", "settings": settings}) == {
        "task": "detection",
        "settings": new,
    }
