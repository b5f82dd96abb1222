"""What a name, a folder, a pointer stand for; and that a run knows its data."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import botformer
from botformer import cli
from botformer.commands.results_folder import results_folder
from botformer.errors import InputError
from botformer.weights import SHIPPED


def trained(colours, out, *more):
    quick = ["--run.max-steps=2", "--run.batch-size=8", "--run.workers=0", "--images.size=32", *more]
    return cli.main(["train", "digits", "--data", str(colours), "--out", str(out), *quick])


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert trained(colours, out) == 0
    return out


def test_the_pointers_of_a_run_can_be_loaded(run):
    weights = [botformer.load(place).model.state_dict() for place in (run, run / "last", run / "best")]
    assert all(torch.equal(weights[0][name], other[name]) for other in weights for name in other)


def test_a_folder_that_is_called_like_a_shipped_network_does_not_hide_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, model_config = botformer.load(run)
    botformer.save(model, model_config, tmp_path / "shipped.safetensors")
    monkeypatch.setitem(SHIPPED, "nuclei", tmp_path / "shipped.safetensors")
    (tmp_path / "nuclei").mkdir()
    assert botformer.load("nuclei").model_config == model_config
    shutil.rmtree(tmp_path / "nuclei")
    shutil.copytree(run, tmp_path / "nuclei")
    monkeypatch.setitem(SHIPPED, "nuclei", tmp_path / "gone.safetensors")
    assert botformer.load("nuclei").model_config == model_config


def test_a_run_does_not_continue_on_other_classes(run, colours, tmp_path, capsys):
    others = tmp_path / "others"
    shutil.copytree(colours, others)
    for folder in others.glob("*/*"):
        if folder.is_dir():
            folder.rename(folder.with_name(f"new_{folder.name}"))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert trained(others, copy) == 2
    assert "holds a run on other data: its class_names are" in capsys.readouterr().err


def test_the_shipped_network_finds_nuclei_in_the_embedded_micrograph():
    """Not a measurement: the micrograph was in its training."""
    from botformer.data.synthetic.nuclei_crops import read_nuclei

    detector, model_config = botformer.load("nuclei")
    assert model_config["categories"] == [[1, "nucleus"]]
    grey, labels = read_nuclei()
    image = torch.tensor(grey).float().expand(3, *grey.shape) / 255
    (found,) = detector([image], masks="dense")
    masks = found["masks"][found["scores"] >= 0.5].flatten(1).float()
    nuclei = torch.stack([torch.tensor(labels == label) for label in np.unique(labels)[1:]]).flatten(1).float()
    common = masks @ nuclei.T
    hits = int((common / (masks.sum(1)[:, None] + nuclei.sum(1) - common) > 0.5).sum())  # one to one above one half
    assert hits > 0.6 * len(nuclei)
    assert hits > 0.8 * len(masks)


def test_an_unknown_name_is_an_error():
    with pytest.raises(InputError, match="does not exist; expected the --out folder"):
        botformer.load("nowhere")


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_checkpoint_in_which_a_bit_flipped_is_not_loaded(run, tmp_path, name):
    copy = shutil.copytree(run, tmp_path / "run", symlinks=True)
    for file in copy.glob("checkpoints/*/model.safetensors"):
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors is damaged: it has another checksum"):
        botformer.load(copy / name)


def test_results_of_a_shipped_network_do_not_lie_in_a_folder_of_images_with_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nuclei").mkdir()
    assert results_folder(Path("nuclei"), "predictions") == Path("runs/predictions/nuclei")
