"""A classifier and a detector that were never trained, and images of odd sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import botformer
from botformer.create import create_classification_task
from botformer.recipes.schema import ClassificationRecipe, Images, Model
from tests.commands.detection_scenes import save_detector

NAMES = ["cat", "dog", "größe", "ant", "bee", "elk", "fox"]
SIZES = ((40, 30), (32, 32), (7, 90), (90, 7), (1, 1), (33, 64), (130, 100), (2, 3))
"""(width, height)."""


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    recipe = ClassificationRecipe(model=Model("botnet_nano", zero_gamma=False), images=Images(size=32))
    task = create_classification_task(recipe, NAMES).eval()
    file = tmp_path_factory.mktemp("classifier") / "classes.safetensors"
    with torch.no_grad():
        task.model.fc.weight.mul_(20)
    botformer.save(task.model, task.model_config(), file)
    return file


@pytest.fixture(scope="session")
def detector(tmp_path_factory) -> Path:
    return save_detector(tmp_path_factory.mktemp("detector") / "boxes and masks.safetensors")


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> list[Path]:
    """PNG and JPEG by turns."""
    folder, rng = tmp_path_factory.mktemp("images with spaces"), np.random.default_rng(0)
    files = []
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        files.append(folder / f"ä {number}.{('png', 'jpg')[number % 2]}")
        Image.fromarray(pixels).save(files[-1])
    return files
