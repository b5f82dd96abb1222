"""botformer predict with classifiers."""

import json

import numpy as np
import torch
from PIL import Image

import botformer
from botformer import cli
from botformer.create import create_classification_task
from botformer.recipes.schema import ClassificationRecipe, Images, Model


def test_a_photograph_four_times_as_large_as_needed_is_predicted_as_it_is_evaluated(tmp_path):
    """JPEG is decoded smaller then, which changes the pixels."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "data" / "validation" / name
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (140, 170, 3)).astype(np.uint8)).save(folder / "0.jpg")
    recipe = ClassificationRecipe(model=Model("botnet_nano", zero_gamma=False), images=Images(size=32))
    task = create_classification_task(recipe, ["cat", "dog"]).eval()
    botformer.save(task.model, task.model_config(), tmp_path / "c.safetensors")
    network, data = str(tmp_path / "c.safetensors"), str(tmp_path / "data")
    assert cli.main(["evaluate", network, "--data", data, "--out", str(tmp_path / "e"), "--workers=0"]) == 0
    files = f"{data}/validation"
    assert cli.main(["predict", files, "--checkpoint", network, "--out", str(tmp_path / "p")]) == 0
    evaluated, predicted = (
        [dict(record["top5"]) for record in json.loads((tmp_path / out / "predictions.json").read_text())]
        for out in ("e", "p")
    )
    # One in a batch, the other one by one: the sums are taken in another order.
    for one, other in zip(evaluated, predicted, strict=True):
        assert all(abs(one[name] - other[name]) < 1e-6 for name in one)
    assert evaluated[0] != evaluated[1]
