"""botformer.save and botformer.load: one file that is a whole trained network."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import botformer
from botformer.create import create_classification_task, create_detection_task
from botformer.errors import InputError
from botformer.recipes import find_recipe
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, DetectionRecipe, Images, Model
from botformer.weights import SHIPPED, read_model_config

NAMES = ["größe", "細胞", "a b"]
CATEGORIES = [(0, "naïve 人"), (7, "ядро"), (90, "cell")]


def random_statistics(model):
    """Trained networks have them, too."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model.eval()


def detector():
    torch.manual_seed(0)
    recipe = find_recipe("nuclei_mini")
    assert isinstance(recipe, DetectionRecipe)
    task = create_detection_task(
        DetectionRecipe(
            model=Model("botnet_nano", zero_gamma=False, tables="offset"),
            images=DetectionImages(size=64, test_size=96, scale_jitter=(0.5, 2.0)),
            settings=recipe.settings,
        ),
        CATEGORIES,
    )
    return random_statistics(task.model), task.model_config()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A detector's file."""
    file = tmp_path_factory.mktemp("größe 人") / "ядро.safetensors"
    botformer.save(*detector(), file)
    return file


def test_a_classifier_comes_back_as_it_was(tmp_path):
    torch.manual_seed(0)
    recipe = ClassificationRecipe(model=Model("botnet_mini", position="absolute", zero_gamma=False), images=Images(64))
    task = create_classification_task(recipe, NAMES)
    model, images = random_statistics(task.model), torch.rand(2, 3, 64, 64)
    botformer.save(model, task.model_config(), tmp_path / "größe.safetensors")
    loaded = botformer.load(tmp_path / "größe.safetensors")
    assert loaded.model_config == json.loads(json.dumps(task.model_config()))
    assert loaded.model_config["class_names"] == NAMES
    assert not loaded.model.training
    assert torch.equal(loaded.model(images), model(images))


def test_a_detector_comes_back_as_it_was(saved):
    model, model_config = detector()
    loaded = botformer.load(saved)
    assert loaded.model_config == json.loads(json.dumps(model_config))
    assert [tuple(category) for category in loaded.model_config["categories"]] == CATEGORIES
    assert (loaded.model.settings, loaded.model.image_size) == (model.settings, model.image_size)
    images = [torch.rand(3, 70, 50), torch.rand(3, 96, 120)]
    for found, expected in zip(loaded.model(images), model(images), strict=True):
        assert len(expected["boxes"]) > 0
        for key in ("boxes", "labels", "scores"):
            assert torch.equal(found[key], expected[key])
        assert found["masks"] == expected["masks"]


def test_what_was_loaded_can_be_saved_again(saved, tmp_path):
    botformer.save(*botformer.load(saved), tmp_path / "again.safetensors")
    assert read_model_config(tmp_path / "again.safetensors") == read_model_config(saved)
    first, second = load_file(saved), load_file(tmp_path / "again.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


# Places and contents that cannot be saved


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("model.pth", r"model.pth will be a safetensors file; name it model.safetensors"),
        ("nowhere/model.safetensors", r"model.safetensors cannot be written: .*nowhere is not a folder; make it first"),
    ],
)
def test_places_that_cannot_be_read_again_are_refused(place, words, tmp_path):
    with pytest.raises(InputError, match=words):
        botformer.save(torch.nn.Linear(1, 1), {}, tmp_path / place)
    assert not list(tmp_path.iterdir())


def test_a_model_config_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"the model config for .*a.safetensors must be a dict that JSON can hold .*set"
    ):
        botformer.save(torch.nn.Linear(1, 1), {"names": {"a"}}, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# Files that cannot be loaded


@pytest.mark.parametrize("left", [0, 8, 50, 0.5, -1])
def test_a_file_cut_short_is_named(left, saved, tmp_path):
    content, file = saved.read_bytes(), tmp_path / "cut.safetensors"
    file.write_bytes(content[: int(left * len(content)) if left == 0.5 else left])
    with pytest.raises(
        InputError, match=r"cut.safetensors is truncated or not a safetensors file .*; download or save"
    ):
        botformer.load(file)


def test_what_is_no_safetensors_file_is_named(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights.pth is not a .safetensors file; .* give them as --model.weights"):
        botformer.load(tmp_path / "weights.pth")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"page.safetensors is truncated or not a safetensors file"):
        botformer.load(tmp_path / "page.safetensors")


def test_the_message_for_weights_without_a_model_config_says_how_to_use_them(saved, tmp_path):
    save_file(load_file(saved), tmp_path / "bare.safetensors")
    with pytest.raises(
        InputError, match=r"bare.safetensors has weights but does not say of which network; .*--model.w"
    ):
        botformer.load(tmp_path / "bare.safetensors")


def model_config_text(file):
    with safe_open(file, "pt") as opened:
        return opened.metadata()["botformer"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model_config: "{", "has a damaged model config, no JSON"),
        (lambda model_config: "[]", "has a list as its model config, not an object"),
        (lambda model_config: "{}", r"does not say which network it holds \(KeyError\('task'\)\)"),
        (lambda model_config: model_config | {"task": "pose"}, "does not say which network it holds"),
        (
            lambda model_config: model_config | {"model": "botnet55"},
            "the model config of .* cannot be built: unknown model 'botnet55'",
        ),
        (
            lambda model_config: model_config | {"settings": {"speed": 3}},
            "cannot be built: unknown detector option 'speed'",
        ),
        (
            lambda model_config: model_config | {"images": {"side": 3}},
            "built: unknown field of images 'side'.*later ver",
        ),
        (lambda model_config: model_config | {"attention": "new"}, "built: unknown field 'attention'; .*later version"),
        (lambda model_config: model_config | {"image_size": 10**9}, "image_size must be .* at most 65536"),
        (lambda model_config: model_config | {"images": {"size": 10**9}}, "images.size is 1000000000; expected from 1"),
        (
            lambda model_config: model_config | {"options": {"heads": "4"}},
            "model.heads is '4'; expected a whole number",
        ),
        (
            lambda model_config: model_config | {"options": [4]},
            r"does not say which network it holds .*options is \[4\]",
        ),
        (lambda model_config: model_config | {"settings": {"fpn_channels": 10**9}}, "expected from 1 to 65536"),
        (lambda model_config: model_config | {"settings": {"mask_convolutions": 10**9}}, "expected from 1 to 1000"),
        # Within every bound, and a terabyte: compared with the file before memory is taken.
        (lambda model_config: model_config | {"settings": {"fpn_channels": 65_536}}, "does not fit botnet_nano"),
        (lambda model_config: model_config | {"categories": [["1", "a"]]}, "category '1' 'a' is no whole number"),
        (lambda model_config: model_config | {"mean": [0.5, 0.5]}, "mean has 2 values, but images have 3 channels"),
        (lambda model_config: model_config | {"categories": "cell"}, "does not say which network it holds"),
        (lambda model_config: model_config | {"categories": [1, 2, 3]}, "does not say which network it holds"),
        (lambda model_config: model_config | {"categories": []}, "cannot be built: num_classes .* at least 1, got 0"),
        (
            lambda model_config: model_config | {"categories": [[1, "a"]]},
            "does not fit botnet_nano with 1 classes: .* of another shape",
        ),
        (
            lambda model_config: {key: model_config[key] for key in model_config if key != "settings"},
            r"KeyError\('settings'\)",
        ),
    ],
)
def test_a_wrong_model_config_is_named_with_its_file(change, words, saved, tmp_path):
    changed = change(json.loads(model_config_text(saved)))
    text = changed if isinstance(changed, str) else json.dumps(changed)
    save_file(load_file(saved), tmp_path / "wrong.safetensors", metadata={"botformer": text})
    with pytest.raises(InputError, match=words) as caught:
        botformer.load(tmp_path / "wrong.safetensors")
    assert "wrong.safetensors" in str(caught.value)


# Networks by name


def test_a_network_of_the_package_is_loaded_by_name(saved, monkeypatch):
    monkeypatch.setitem(SHIPPED, "nuclei", saved)
    assert botformer.load("nuclei").model_config == read_model_config(saved)


def test_a_network_of_the_package_that_is_missing_or_misspelt_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(SHIPPED, "nuclei", tmp_path / "gone.safetensors")
    with pytest.raises(InputError, match=r"'nuclei' should come with botformer, but its file .*gone.* install botf"):
        botformer.load("nuclei")
    with pytest.raises(InputError, match=r"nucle does not exist; .* that comes with botformer: nuclei"):
        botformer.load("nucle")
