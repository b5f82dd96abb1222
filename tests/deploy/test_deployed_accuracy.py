"""An exported network is measured as `botformer evaluate` measures the network itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import botformer
from botformer.deploy.deployed_accuracy import DeployedAccuracy
from botformer.deploy.prepared_images import images_in, inputs_of, prepared_batches, prepared_inputs
from botformer.detection.padding import PaddedImages
from botformer.errors import InputError
from botformer.evaluate.evaluate_checkpoint import evaluate_checkpoint
from botformer.evaluate.options import EvaluateOptions
from botformer.image_normalization import normalize
from tests.commands.detection_scenes import save_detector, write_scenes

CLASSIFIER = Path(__file__).parents[1] / "fixtures/classifier_run"
ANY_SIZE = {"inputs": [{"name": "pixels", "shape": ["batch", 3, "height", "width"]}]}


class InPyTorch:
    """A network behind the call of an exported one: images one at a time, results of fixed shape."""

    def __init__(self, model, config):
        self.model, self.config = model, config

    def __call__(self, pixels, sizes=None):
        pixels = torch.from_numpy(pixels)
        with torch.inference_mode():
            if sizes is None:
                return {"logits": self.model(normalize(pixels, self.model.mean, self.model.std)).numpy()}
            (found,) = self.model.detect_on_canvas(PaddedImages(pixels, [tuple(sizes[0].tolist())]))
        missing = self.model.settings.max_detections - len(found.detections.scores)
        results = {
            "boxes": found.detections.boxes_xyxy,
            "scores": found.detections.scores,
            "labels": found.detections.labels,
            "masks": found.masks,
        }
        return {
            name: torch.cat([result, result.new_zeros(missing, *result.shape[1:])])[None].numpy()
            for name, result in results.items()
        }


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Class folders of images of odd sizes; every third has the other's colour."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("validation", 7)):
        for label, name in enumerate(("green", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 90, (17 + number, 31, 3), dtype=np.uint8)
                pixels[..., 1 - label if number % 3 else label] += 120
                Image.fromarray(pixels).save(root / split / name / f"bild ä{number}.png")
    return root


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    network = save_detector(root / "random.safetensors")
    write_scenes(root / "data", network)
    return network, root / "data"


def evaluated(checkpoint, data, out):
    metrics = evaluate_checkpoint(EvaluateOptions(checkpoint, str(data), "validation", out, workers=0), "cpu")
    assert metrics is not None
    return metrics


def test_a_classifier_gets_the_top1_of_evaluate(colours, tmp_path):
    loaded = botformer.load(CLASSIFIER)
    accuracy = DeployedAccuracy(loaded, ANY_SIZE, str(colours), workers=0)
    done = []
    score = accuracy.measure(InPyTorch(loaded.model, ANY_SIZE), done.append)
    assert score == evaluated(CLASSIFIER, colours, tmp_path)["top1"]
    assert accuracy.scale == ("top1", 14, "images")
    assert len(done) == 14
    assert done[-1] == 1


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_a_detector_gets_the_mask_ap_of_evaluate(scenes, tmp_path, batch):
    network, data = scenes
    loaded = botformer.load(network)
    side = loaded.model_config["images"]["size"]
    config = {"inputs": [{"name": "pixels", "shape": [batch, 3, side, side]}, {"name": "sizes", "shape": [batch, 2]}]}
    runtime = InPyTorch(loaded.model, config)
    given = []

    def of_first(pixels, sizes):
        given.append(pixels.shape)
        return runtime(pixels[:1], sizes[:1])

    of_first.config = config
    accuracy = DeployedAccuracy(loaded, config, str(data), workers=0)
    metrics = evaluated(network, data, tmp_path)
    assert metrics["mask"]["AP"] > 0.01
    # One image at once, or several: on some processors sums are taken in another order.
    assert accuracy.measure(of_first) == pytest.approx(metrics["mask"]["AP"], abs=1e-5)
    assert accuracy.scale == ("mask_AP", metrics["objects"], "objects")
    assert set(given) == {(3 if batch == 3 else 1, 3, side, side)}


def test_images_in_tiles_are_given_tile_by_tile(scenes):
    network, data = scenes
    loaded = botformer.load(network)
    loaded.model_config["images"]["tile"] = 64
    side = loaded.model_config["images"]["size"]
    config = {
        "inputs": [{"name": "pixels", "shape": ["batch", 3, side, side]}, {"name": "sizes", "shape": ["batch", 2]}]
    }
    batches, _ = prepared_batches(loaded, None, str(data), "validation", 0, 0)
    inputs = list(prepared_inputs(config, batches))
    assert len(inputs) > len(batches)
    assert all(each["pixels"].shape == (1, 3, side, side) and each["sizes"].shape == (1, 2) for each in inputs)
    accuracy = DeployedAccuracy(loaded, config, str(data), workers=0)
    assert 0 < accuracy.measure(InPyTorch(loaded.model, config)) <= 1


def test_calibration_images_are_the_same_every_time_and_evenly_spread(colours):
    loaded = botformer.load(CLASSIFIER)
    names = []
    for _ in range(2):
        batches, _ = prepared_batches(loaded, None, str(colours), "train", 4, 0)
        names.append([file for batch in batches for file in batch["files"]])
    assert names[0] == names[1]
    assert len(names[0]) == 4
    assert {name.split("/")[0] for name in names[0]} == {"green", "red"}


def test_a_network_for_oblong_images_cannot_be_measured(colours):
    loaded = botformer.load(CLASSIFIER)
    config = {"inputs": [{"name": "pixels", "shape": ["batch", 3, 32, 48]}]}
    with pytest.raises(InputError, match="exported for images of 48x32 px, and it is evaluated on squares"):
        DeployedAccuracy(loaded, config, str(colours), workers=0)


@pytest.mark.parametrize(("width", "height"), [(31, 17), (17, 63), (1, 200)])
def test_images_in_a_folder_are_as_the_network_sees_them(width, height, scenes, tmp_path):
    """The whole of an image, scaled to the canvas; of a classifier a square."""
    Image.new("L", (width, height), 77).save(tmp_path / "a.png")
    (image,) = images_in(tmp_path, botformer.load(scenes[0]).model_config, 64, 8)
    scale = 64 / max(width, height)
    assert image.shape == (3, max(1, round(height * scale)), max(1, round(width * scale)))
    (square,) = images_in(tmp_path, botformer.load(CLASSIFIER).model_config, None, 8)
    assert square.shape == (3, 16, 16)
    assert torch.allclose(image, torch.full_like(image, 77 / 255))


@pytest.mark.parametrize(("there", "taken"), [(1, 1), (8, 8), (9, 8), (30, 8)])
def test_a_few_images_are_taken_of_many(there, taken, tmp_path):
    for number in range(there):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    assert len(images_in(tmp_path, botformer.load(CLASSIFIER).model_config, None, 8)) == taken


def test_floats_and_bytes_are_the_same_image():
    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    of_bytes, of_floats = inputs_of(ANY_SIZE, image), inputs_of(ANY_SIZE, image.float() / 255)
    np.testing.assert_array_equal(of_bytes["pixels"], of_floats["pixels"])
    assert of_bytes["pixels"].dtype == np.float32
