"""First weights of a detector: from a classifier's run, from a ResNet, from another detector."""

import re
from dataclasses import replace

import pytest
import torch
import torchvision
from safetensors.torch import save_file

import botformer
from botformer import cli
from botformer.backbone.mhsa import MHSA2d
from botformer.create import create_detection_task
from botformer.create.networks import network_of
from botformer.errors import InputError
from botformer.recipes.detector_settings import SMALL
from botformer.recipes.from_json import recipe_from_json
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, DetectionRecipe, Model

KINDS = [(1, "cell"), (5, "nucleus")]


def detection_task(name, weights="", categories=KINDS):
    model = Model(name, zero_gamma=False, tables="offset", weights=str(weights))
    return create_detection_task(
        DetectionRecipe(model=model, images=DetectionImages(size=64), settings=replace(SMALL, fpn_channels=16)),
        categories,
    )


def differing(ours, loaded):
    """Names of ours that are not, value for value, in loaded."""
    return {name for name, value in ours.items() if name not in loaded or not torch.equal(value, loaded[name])}


def test_a_classifier_s_run_gives_the_backbone(colours, tmp_path, caplog):
    run = tmp_path / "run"
    quick = ["--run.max-steps=1", "--run.batch-size=8", "--run.workers=0", "--images.size=64"]
    assert cli.main(["train", "digits", "--data", str(colours), "--out", str(run), *quick]) == 0
    loaded = botformer.load(run).model.state_dict()
    with caplog.at_level("INFO"):
        ours = detection_task("botnet_nano", run).model.backbone.state_dict()
    assert differing(ours, loaded) == set()
    assert "into the backbone" in caplog.text
    assert "2 in the file but not in the model: fc.bias, fc.weight" in caplog.text
    assert differing(detection_task("botnet_nano").model.backbone.state_dict(), loaded)


def test_a_resnet50_of_torchvision_gives_all_but_the_attention_of_c5(tmp_path, caplog):
    loaded = torchvision.models.resnet50().state_dict()
    for name, value in loaded.items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    save_file(loaded, tmp_path / "resnet50.safetensors")
    with caplog.at_level("INFO"):
        ours = detection_task("botnet50", tmp_path / "resnet50.safetensors").model.backbone.state_dict()
    left = differing(ours, loaded)
    assert left
    assert all(re.fullmatch(r"layer4\.\d\.conv2\..*", name) for name in left)
    assert {name for name in ours if not re.fullmatch(r"layer4\.\d\.conv2\..*", name)} <= loaded.keys()
    assert "stays random" not in caplog.text


@pytest.mark.parametrize("others", [[(1, "cell")], [(2, "star"), (3, "moon"), (4, "sun")]])
def test_a_detector_of_other_categories_gives_all_but_the_predictors(others, tmp_path, caplog):
    torch.manual_seed(0)
    first = detection_task("botnet_nano", categories=others)
    botformer.save(first.model, first.model_config(), tmp_path / "first.safetensors")
    torch.manual_seed(1)
    untouched = detection_task("botnet_nano").model.state_dict()
    torch.manual_seed(1)
    with caplog.at_level("INFO"):
        task = detection_task("botnet_nano", tmp_path / "first.safetensors")
    predictors = {
        f"{part}.{kind}"
        for part in ("box_head.predictor.cls_score", "box_head.predictor.bbox_pred", "mask_head.logits")
        for kind in ("weight", "bias")
    }
    ours = task.model.state_dict()
    assert differing(ours, first.model.state_dict()) == predictors
    assert all(torch.equal(ours[name], untouched[name]) for name in predictors)
    assert f"6 of another shape, left as initialised: {', '.join(sorted(predictors))}" in caplog.text
    assert task.model_config()["categories"] == [[1, "cell"], [5, "nucleus"]]


def test_batch_norm_of_a_backbone_follows_the_detector_unless_the_recipe_names_it():
    def norms(**options):
        recipe = DetectionRecipe(
            model=Model("botnet_nano", **options),
            images=DetectionImages(size=64),
            settings=replace(SMALL, fpn_channels=16, norm_epsilon=1e-3, norm_momentum=0.25),
        )
        task = create_detection_task(recipe, KINDS)
        rebuilt = network_of(task.model_config())
        for network in (task.model, rebuilt):
            kinds = [module for module in network.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
            yield {(norm.eps, norm.momentum) for norm in kinds}

    with torch.device("meta"):
        assert list(norms()) == [{(1e-3, 0.25)}] * 2
        assert list(norms(norm_momentum=0.5)) == [{(1e-3, 0.5)}] * 2
        classifier = botformer.create_model("botnet_nano")
    assert (classifier.bn1.eps, classifier.bn1.momentum) == (1e-5, 0.1)


def test_the_implementation_of_the_attention_is_not_kept_with_the_network():
    """A network that was trained with one of a GPU is loaded on a CPU."""
    recipe = DetectionRecipe(model=Model("botnet_nano", backend="tiled", heads=2), images=DetectionImages(size=64))
    with torch.device("meta"):
        task = create_detection_task(recipe, KINDS)
        rebuilt = network_of(task.model_config())
    assert {layer.backend for layer in attention_layers(task.model)} == {"tiled"}
    assert {(layer.backend, layer.heads) for layer in attention_layers(rebuilt)} == {("auto", 2)}
    assert "backend" not in task.model_config()["options"]


def attention_layers(network):
    return [module for module in network.modules() if isinstance(module, MHSA2d)]


@pytest.mark.parametrize("content", [[], 7, "x", None, {"run": []}, {"run": 7}, {"model": None}, {"images": "x"}])
@pytest.mark.parametrize("kind", [ClassificationRecipe, DetectionRecipe])
def test_json_that_is_no_recipe_is_refused(kind, content):
    with pytest.raises(InputError, match="expected an object of its fields"):
        recipe_from_json(kind, content)
