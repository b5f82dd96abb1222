import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from botformer.errors import InputError
from botformer.weights import read_state_dict

TENSORS = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


def assert_same(state):
    assert state.keys() == TENSORS.keys()
    assert all(torch.equal(state[name], TENSORS[name]) for name in TENSORS)


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert_same(read_state_dict(tmp_path / "a.safetensors"))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"state_dict": t, "epoch": 3},
        lambda t: {"model": {f"module.{name}": tensor for name, tensor in t.items()}},
        lambda t: {f"_orig_mod.{name}": tensor for name, tensor in t.items()},
        lambda t: {f"module._orig_mod.module.{name}": tensor for name, tensor in t.items()},
        lambda t: {f"_orig_mod.module.{name}": tensor for name, tensor in t.items()},
        lambda t: {"state_dict": {f"model._orig_mod.{name}": tensor for name, tensor in t.items()}},
        lambda t: {"state_dict": {f"net.module.{name}": tensor for name, tensor in t.items()}},
        lambda t: {"ema": {"decay": 0.99, "shadow": t}},
        lambda t: {"model_ema": {"n_averaged": torch.tensor(3)} | {f"module.{name}": x for name, x in t.items()}},
        lambda t: {"state_dict": {name: 2 * x for name, x in t.items()}, "state_dict_ema": t},
        lambda t: {"model": {"model": {"state_dict": t}}, "epoch": torch.tensor(3)},
        lambda t: {"state_dict": t, "args": argparse.Namespace(lr=0.1, opt="sgd", betas=(0.9, 0.99), nested={})},
    ],
)
def test_pth_files_with_the_wrappers_of_training_scripts(tmp_path, wrap):
    torch.save(wrap(TENSORS), tmp_path / "a.pth")
    assert_same(read_state_dict(tmp_path / "a.pth"))


def test_the_average_is_read_before_the_weights_and_the_log_says_so(tmp_path, caplog):
    torch.save({"model": {"a.b": torch.zeros(2)}, "model_ema": {"a.b": torch.ones(2)}}, tmp_path / "a.pth")
    with caplog.at_level("INFO"):
        assert read_state_dict(tmp_path / "a.pth")["a.b"].tolist() == [1, 1]
    assert "holds weights under model; those under 'model_ema' are read" in caplog.text


class Other(argparse.Namespace):
    """Not the one that is let through."""


@pytest.mark.parametrize("more", [Other(lr=1), Path("x"), argparse.Namespace(p=Path("x"))])
def test_of_python_objects_only_a_namespace_of_plain_values_is_let_through(tmp_path, more):
    torch.save({"state_dict": TENSORS, "args": more}, tmp_path / "a.pth")
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(InputError, match="would run code from the file"):
        read_state_dict(tmp_path / "a.pth")
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_namespace_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path):
    proof = tmp_path / "proof"

    class Attack:
        def __reduce__(self):
            return open, (str(proof), "w")

    torch.save({"state_dict": TENSORS, "args": argparse.Namespace(lr=Attack())}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="would run code from the file"):
        read_state_dict(tmp_path / "a.pth")
    assert not proof.exists()


def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path):
    proof = tmp_path / "proof"

    class Attack:
        def __reduce__(self):
            return open, (str(proof), "w")

    for name, dump in (("plain.pth", pickle.dump), ("zipped.pth", torch.save)):
        if dump is pickle.dump:
            with open(tmp_path / name, "wb") as file:
                pickle.dump({"model": Attack()}, file)
        else:
            torch.save({"state_dict": Attack()}, tmp_path / name)
        with pytest.raises(InputError, match="would run code from the file"):
            read_state_dict(tmp_path / name)
    assert not proof.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_truncated_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save_file(TENSORS, path) if suffix == "safetensors" else torch.save(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"a\.{suffix} is truncated"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "words"), [([1, 2], "holds a list"), ({"epoch": 3}, "no tensors by name"), ({}, "no tensors by name")]
)
def test_files_without_a_state_dict_are_named(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match=words):
        read_state_dict(tmp_path / "a.pth")


def test_dicts_that_hold_each_other_end(tmp_path):
    outer, inner = {}, {}
    outer["model"], inner["model"] = inner, outer
    torch.save(outer, tmp_path / "a.pth")
    with pytest.raises(InputError, match="no tensors by name"):
        read_state_dict(tmp_path / "a.pth")
    outer["params"] = inner["params"] = TENSORS
    torch.save(outer, tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth").keys() == TENSORS.keys()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs"),
        (b"\xff\xd8\xff\xe0 image", "a JPEG image"),
        (b"these are just words", "not a PyTorch file"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, content, words):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_any_damage_gives_a_message(tmp_path, zipped):
    torch.save(TENSORS, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "a.pth").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, len(damaged), 3):
            damaged[place] = random.integers(256)
        (tmp_path / "b.pth").write_bytes(damaged)
        try:
            read_state_dict(tmp_path / "b.pth")
        except InputError:
            refused += 1
    assert refused > 100


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.pth is not a file; expected weights as"):
        read_state_dict(tmp_path / "nothing.pth")


def test_the_hub_is_read_from_its_local_cache(tmp_path, monkeypatch):
    """A file laid out as the hub's cache lays it out is found without a connection."""
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("0" * 40)
    save_file(TENSORS, snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert_same(read_state_dict("hf://owner/name"))
    assert_same(read_state_dict("hf://owner/name/model.safetensors"))
    with pytest.raises(InputError, match="hub cannot be reached"):
        read_state_dict("hf://owner/other")


@pytest.mark.parametrize("source", ["hf://owner", "hf://", "hf:///name"])
def test_a_malformed_hub_address(source):
    with pytest.raises(InputError, match="expected hf://owner/name"):
        read_state_dict(source)
