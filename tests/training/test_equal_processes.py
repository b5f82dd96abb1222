"""Several gloo processes train as one does: whole runs, from files to the losses in the run log."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from botformer.create.train_recipe import make_parts
from botformer.recipes.detector_settings import Settings
from botformer.recipes.schema import (
    ClassificationRecipe,
    DetectionImages,
    DetectionRecipe,
    Images,
    Model,
    Optimizer,
    Run,
    Schedule,
)
from botformer.training.checkpoint import checkpoint_folder
from botformer.training.distributed import open_accelerator
from botformer.training.loop import fit
from botformer.training.run_log import read_metrics
from tests.data.detection.coco_files import CATEGORIES, annotation, compressed, content, disc, image, write
from tests.fork_server import launch, start_process

STEPS = 20
RUN = Run(batch_size=6, precision="float32", device="cpu", workers=0, threads=1, max_steps=STEPS, evaluate_every=99)
MODEL = Model("botnet_nano", normalization="sync", zero_gamma=False)
CLASSIFIER = ClassificationRecipe(
    model=MODEL,
    images=Images(size=32),
    optimizer=Optimizer("sgd", learning_rate=1e-4, clip_norm=1.0),
    schedule=Schedule(epochs=99, warmup_epochs=0),
    run=RUN,
)
DETECTOR = DetectionRecipe(
    model=MODEL,
    images=DetectionImages(size=64, scale_jitter=(0.9, 1.1), mask_crop=28),
    settings=Settings(
        levels=("p2", "p3", "p4"), fpn_channels=8, anchor_sizes=(12.0, 18.0, 26.0), rpn_samples=32, roi_samples=16,
        rpn_pre_nms_top_n=60, rpn_post_nms_top_n=30, box_channels=16, mask_channels=8, mask_convolutions=1,
        normalization="sync", norm_momentum=0.1,
    ),
    optimizer=Optimizer("momentum", learning_rate=1e-3, clip_norm=1.0),
    schedule=Schedule(epochs=99, warmup_epochs=0),
    run=RUN,
)  # fmt: skip
RUNS: dict[str, tuple[Any, torch.dtype]] = {
    "classifier": (CLASSIFIER, torch.float32),
    "detector": (DETECTOR, torch.float32),
    # Float32 rounds in another order, and a run magnifies the difference. Not so float64, at any learning rate.
    "accumulated": (
        replace(
            DETECTOR,
            optimizer=replace(DETECTOR.optimizer, learning_rate=0.02),
            run=replace(RUN, batch_size=8, accumulation=2, max_steps=3),
        ),
        torch.float64,
    ),
}


@pytest.fixture(scope="module")
def data(colours, tmp_path_factory) -> dict[str, Path]:
    scenes = tmp_path_factory.mktemp("discs")
    for split, count in (("train", 12), ("validation", 2)):
        write_discs(scenes, split, count)
    return {"classifier": colours, "detector": scenes, "accumulated": scenes}


def write_discs(root: Path, split: str, count: int) -> None:
    """Bright and dark discs on noise. Every third image has none, and of every sixth they have no shape."""
    noise = np.random.default_rng(0)
    images, annotations, drawn = [], [], {}
    for number in range(1, count + 1):
        pixels = noise.normal(120, 12, (64, 64))
        for row, column in [] if number % 3 == 0 else [(18, 20), (44, 42)][: number % 3]:
            mask = disc(64, 64, column, row, 6 + number % 5)
            pixels[mask] += 90 if column < 32 else -90
            rows, columns = np.nonzero(mask)
            box = [float(side) for side in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
            shape = {} if number % 6 == 4 else {"segmentation": compressed(mask)}
            category = CATEGORIES[column > 32]["id"]
            annotations.append(annotation(len(annotations) + 1, number, box, category_id=category, **shape))
        drawn[f"{number}.png"] = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        images.append(image(number, f"{number}.png", 64, 64))
    write(root, content(images, annotations), f"instances_{split}.json", split)
    for name, picture in drawn.items():
        picture.save(root / split / name)


def folder_of(run: Path) -> Path:
    folder = checkpoint_folder(run)
    assert folder is not None
    return folder


def losses(out: Path) -> list[dict[str, float]]:
    """Of every step."""
    return [
        {name: record[name] for name in record if "loss" in name}
        for record in read_metrics(out / "metrics.jsonl")
        if record["kind"] == "train"
    ]


def train_all(data: dict[str, Path], out: Path) -> None:
    for name, (recipe, dtype) in RUNS.items():
        accelerator = open_accelerator(recipe.run)
        parts = make_parts(recipe, str(data[name]), accelerator)
        assert isinstance(parts.task, nn.Module)
        parts.task.to(dtype)
        fit(parts.task, parts.train, parts.evaluation, recipe, out / name, accelerator=accelerator)


def train_in_a_process(data: dict[str, Path], out: Path) -> None:
    torch.set_num_threads(1)
    PartialState._reset_state()  # forked along with the process
    PartialState(cpu=True)
    train_all(data, out)


def torchrun(processes: int, data: dict[str, Path], out: Path) -> None:
    launch(processes, train_in_a_process, data, out)


def in_processes(count: int, data: dict[str, Path], out: Path) -> Path:
    process = start_process(torchrun, count, data, out)
    process.join()
    assert process.exitcode == 0
    return out


@pytest.fixture(scope="module")
def one(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    train_all(data, out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_losses_are_those_of_one_process(count: int, one: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """Six images among four processes: two of them have two, two have one; and often a process has no object."""
    many = in_processes(count, data, tmp_path)
    for name, (recipe, _) in RUNS.items():
        expected, found = losses(one / name), losses(many / name)
        assert len(found) == recipe.run.max_steps
        for step, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
            assert theirs == pytest.approx(ours, rel=0, abs=1e-5), (name, step)
        weights, same = (load_file(folder_of(run / name) / "model.safetensors") for run in (one, many))
        torch.testing.assert_close(same, weights, rtol=1e-4, atol=1e-4)  # statistics of BatchNorm among them
