import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import botformer
from botformer import hub
from botformer.create.first_weights import find_first_weights
from botformer.errors import InputError
from botformer.recipes.schema import Model
from botformer.weights.hub_file import hub_file, read_address

from .hub_cache import COMMIT, add_to_cache

RUN = Path(__file__).parents[1] / "fixtures" / "classifier_run"
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return hub.prepare_folder(RUN, tmp_path_factory.mktemp("hub") / "prepared", "anna/shapes")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, folder) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    add_to_cache(cache, "anna/shapes", folder)
    add_to_cache(cache, "anna/shapes", folder, revision="v2", commit="f" * 40)
    return cache


@pytest.fixture
def offline(monkeypatch, cache) -> Path:
    """What HF_HUB_OFFLINE and HF_HUB_CACHE mean to a process that starts with them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def assert_same_network(loaded):
    trained = botformer.load(RUN)
    assert loaded.model_config == trained.model_config
    with torch.inference_mode():
        assert torch.equal(loaded.model(IMAGES), trained.model(IMAGES))


@pytest.mark.parametrize("source", ["anna/shapes", "hf://anna/shapes", f"hf://anna/shapes@{COMMIT}", "hf:/anna/shapes"])
def test_a_network_comes_back_as_it_went(cache, source):
    assert_same_network(hub.from_pretrained(source, cache_dir=cache, local_files_only=True))


@pytest.mark.parametrize("revision", ["main", "v2", "f" * 40, COMMIT])
def test_a_revision_is_a_branch_a_tag_or_a_commit(cache, revision):
    assert_same_network(
        botformer.from_pretrained("anna/shapes", revision=revision, cache_dir=cache, local_files_only=True)
    )


def test_a_folder_is_as_good_as_a_repository(folder, monkeypatch):
    assert_same_network(hub.from_pretrained(folder))
    assert_same_network(botformer.load(folder))
    monkeypatch.chdir(folder.parent.parent)  # a folder is taken before a repository of its name
    assert_same_network(hub.from_pretrained(os.path.relpath(folder)))


def test_everything_that_loads_a_network_takes_an_address(offline):
    assert_same_network(botformer.load("hf://anna/shapes"))
    assert_same_network(botformer.load("hf://anna/shapes@v2"))
    assert_same_network(botformer.load(Path("hf://anna/shapes")))  # as the commands hand it on


def test_a_training_can_start_from_an_address_and_knows_its_normalisation(offline, tmp_path):
    config = botformer.load(RUN).model_config | {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    botformer.save(botformer.load(RUN).model, config, tmp_path / "model.safetensors")
    add_to_cache(offline, "anna/unusual", tmp_path)
    first = find_first_weights(Model(weights="hf://anna/unusual"))
    assert first is not None
    assert first.normalization == {"mean": [0.1, 0.2, 0.3], "std": [1.0, 1.0, 1.0]}
    assert first.source == "hf://anna/unusual"


def test_timms_weights_are_not_mistaken_for_ours(offline, tmp_path):
    save_file({"conv1.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "botnet26t_256"}))
    add_to_cache(offline, "timm/botnet26t", tmp_path)
    with pytest.raises(InputError, match=r"timm's botnet26t_256.*--model\.weights hf://timm/botnet26t"):
        botformer.load("hf://timm/botnet26t")


def test_only_safetensors_are_a_network(offline, tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    add_to_cache(offline, "anna/pickled", tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors is not in the local cache"):
        botformer.load("hf://anna/pickled")
    with pytest.raises(InputError, match=r"is not a \.safetensors file"):
        botformer.load("hf://anna/pickled/pytorch_model.bin")


def test_a_damaged_file_in_the_cache_is_named(offline, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    add_to_cache(offline, "anna/pointer", tmp_path)
    with pytest.raises(InputError, match="truncated or not a safetensors file"):
        botformer.load("hf://anna/pointer")


def test_what_is_not_in_the_cache_needs_a_connection(cache):
    with pytest.raises(InputError, match="not in the local cache and the hub cannot be reached"):
        hub.from_pretrained("anna/other", cache_dir=cache, local_files_only=True)
    with pytest.raises(InputError, match="not in the local cache and the hub cannot be reached"):
        hub.from_pretrained("anna/shapes", revision="v3", cache_dir=cache, local_files_only=True)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepoError", "accepted its conditions"),
        ("RepositoryNotFoundError", "no such repository, or it is private"),
        ("RevisionNotFoundError", "no revision 'v9'"),
        ("HfHubHTTPError", "the server is tired"),
    ],
)
def test_what_the_hub_refuses_is_said_in_words(monkeypatch, error, words):
    import huggingface_hub.errors as errors

    kind = getattr(errors, error)

    def refuse(*arguments, **options):
        refusal = kind.__new__(kind)
        Exception.__init__(refusal, "the server is tired")
        raise refusal

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(InputError, match=words):
        hub_file("hf://anna/shapes@v9")


@pytest.mark.parametrize(
    ("text", "repository", "revision", "file"),
    [
        ("hf://a/b", "a/b", None, ""),
        ("hf:/a/b", "a/b", None, ""),
        ("hf://a/b.c-d@v1.0", "a/b.c-d", "v1.0", ""),
        ("hf://a/b@refs/pr/7", "a/b", "refs/pr/7", ""),
        ("hf://a/b@feature%2Fx/sub/w.safetensors", "a/b", "feature/x", "sub/w.safetensors"),
        ("hf://a/b/sub/w.bin", "a/b", None, "sub/w.bin"),
    ],
)
def test_addresses(text, repository, revision, file):
    assert read_address(text) == (repository, revision, file)


@pytest.mark.parametrize("text", ["hf://", "hf://a", "hf://a/", "hf:///b", "hf://a/b@", "hf://a@v1/b", "hf:a/b"])
def test_addresses_that_are_none(text):
    with pytest.raises(InputError, match="expected hf://owner/name"):
        read_address(text)


def test_two_revisions_and_a_revision_of_a_folder_are_refused(folder):
    with pytest.raises(InputError, match="another revision"):
        hub.from_pretrained("hf://a/b@v1", revision="v2")
    with pytest.raises(InputError, match="no revisions"):
        hub.from_pretrained(folder, revision="v2")


def test_what_is_neither_a_folder_nor_a_name_is_said_to_be_missing(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        hub.from_pretrained(tmp_path / "nothing")
