"""Int8 from an exported network to the verdict in its folder, with the packages that quantise."""

import json
import logging
import shutil
import sys
import warnings
from functools import cache

import numpy as np
import pytest
import torch

import botformer
from botformer import cli
from botformer.deploy import int8
from botformer.deploy.export import export
from botformer.deploy.gate import Verdict
from botformer.deploy.int8 import export_int8, quantize
from botformer.deploy.runtimes import open_exported
from botformer.errors import InputError
from tests.deploy.test_deployed_accuracy import CLASSIFIER, colours  # noqa: F401

SIDE = 64
KEPT = Verdict("top1", 0.9, 0.9, 0.01, 14, "images", 2.0, 1.0, 2.0)


def images(count, side=SIDE):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, 3, side, side, generator=generator).numpy() for _ in range(count)]


@pytest.fixture(scope="module")
def sharp():
    """Attention that is not flat, and calibrated BatchNorms."""
    from botformer.benchmark.model_steps import our_model

    torch.manual_seed(0)
    return our_model("botnet_nano", SIDE).eval()


NEEDED = {"openvino": ("openvino", "nncf"), "onnx": ("onnxruntime", "onnxscript"), "torch": ("torchao",)}


@pytest.fixture(scope="module")
def float_folders(sharp, tmp_path_factory):
    """Format -> a classifier in float32, exported once."""

    @cache
    def folder(name):
        for package in NEEDED[name]:
            pytest.importorskip(package)
        return export(name, sharp, tmp_path_factory.mktemp("float") / "größe 1")

    return folder


@pytest.fixture(scope="module")
def float_folder(float_folders):
    return float_folders("openvino")


@pytest.mark.parametrize("name", list(NEEDED))
def test_int8_computes_nearly_the_same_at_any_size(name, float_folders, capfd):
    float_folder = float_folders(name)
    capfd.readouterr()
    before = logging.getLoggerClass(), logging.getLogger().handlers[:], warnings.filters[:]
    done = []
    folder = quantize(float_folder, [{"pixels": pixels} for pixels in images(8)], on_progress=done.append)
    assert folder == float_folder.with_name("größe 1-int8")
    assert done == sorted(done)
    assert len(done) >= 8
    assert done[-1] == 1
    assert (logging.getLoggerClass(), logging.getLogger().handlers[:], warnings.filters[:]) == before
    assert "nncf" not in sys.modules
    assert capfd.readouterr() == ("", "")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["precision"] == "int8"
    assert config["calibration_images"] == 8
    float_bytes, int8_bytes = (
        sum(file.stat().st_size for file in each.glob("model.*")) for each in (float_folder, folder)
    )
    if config["format"] != "torch":
        assert int8_bytes < 0.75 * float_bytes  # a nano network is a graph for the most
    expected, found = open_exported(float_folder), open_exported(folder)
    for shape in ((1, 3, SIDE, SIDE), (2, 3, 97, 65)):
        pixels = np.random.default_rng(1).random(shape, dtype=np.float32)
        logits = expected(pixels=pixels)["logits"]
        error = np.linalg.norm(found(pixels=pixels)["logits"] - logits) / np.linalg.norm(logits)
        assert 1e-6 < error < 0.2, error  # eight bits, some thirty layers, random weights


def test_a_refusal_names_both_figures_and_leaves_the_float_network_alone(float_folder, colours, tmp_path, monkeypatch):  # noqa: F811
    loaded = botformer.load(CLASSIFIER)
    monkeypatch.setattr(int8, "gate", lambda *_: Verdict("top1", 0.9, 0.5, 0.01, 14, "images", 1.0, 2.0, 0.5))
    monkeypatch.setattr(int8, "_run_quantizer", lambda *_: None)
    before = {file.name: file.read_bytes() for file in float_folder.iterdir() if file.is_file()}
    with pytest.raises(InputError, match=r"not faster and it loses more .*float32 1 ms and top1 0\.9000, int8 2 ms"):
        export_int8(float_folder, tmp_path / "int8", loaded, str(colours), workers=0)
    assert list(tmp_path.iterdir()) == []
    assert before == {file.name: file.read_bytes() for file in float_folder.iterdir() if file.is_file()}


def test_the_command_keeps_int8_beside_the_float_network(colours, tmp_path, monkeypatch, capsys):  # noqa: F811
    pytest.importorskip("nncf")
    gated = []

    def gate(float_folder, int8_folder, evaluate, limit, inputs, scale):
        gated.append([evaluate(open_exported(folder)) for folder in (float_folder, int8_folder)])
        assert inputs["pixels"].shape == (1, 3, 16, 16)
        return KEPT

    monkeypatch.setattr(int8, "gate", gate)
    call = ["export", str(CLASSIFIER), "--format", "openvino", "--precision", "int8", "--out", str(tmp_path / "x")]
    assert cli.main(call) == 2
    assert "give the training's folder as --data" in capsys.readouterr().err
    assert cli.main([*call, "--data", str(colours)]) == 0
    assert "int8 is kept: float32 2 ms and top1 0.9000, int8 1 ms" in capsys.readouterr().out
    config = json.loads((tmp_path / "x/config.json").read_text(encoding="utf-8"))
    assert config["int8"]["kept"]
    assert config["int8"]["too_few"]
    assert config["precision"] == "int8"
    assert config["calibration_images"] == 10
    assert (tmp_path / "x/run.py").is_file()
    assert json.loads((tmp_path / "x-float32/config.json").read_text(encoding="utf-8"))["precision"] == "float32"
    assert len(gated) == 1
    open_exported(tmp_path / "x")  # every sha256 is right


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("executorch", "classification", "ExecuTorch in int8 is refused"),
        ("openvino", "features", "OpenVINO in int8 is refused"),
    ],
)
def test_what_cannot_be_quantised_is_refused_with_the_reason(name, task, message):
    with pytest.raises(InputError, match=message):
        int8.check_int8(name, task)


def test_a_network_in_another_precision_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"botformer_export": 1, "format": "openvino", "precision": "float16", "task": "classification"})
    )
    with pytest.raises(InputError, match="is in float16; int8 is made of a network in float32"):
        quantize(tmp_path, [])


def test_a_missing_quantiser_names_the_extra(monkeypatch):
    monkeypatch.setattr(int8, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'int8 of OpenVINO needs nncf, .*: pip install "botformer\[export\]"'):
        int8.check_int8("openvino", "classification")


def test_no_images_and_the_float_folder_itself_are_refused(float_folder, colours, tmp_path):  # noqa: F811
    with pytest.raises(InputError, match="needs images to calibrate on"):
        quantize(float_folder, [], tmp_path / "none")
    loaded = botformer.load(CLASSIFIER)
    with pytest.raises(InputError, match="holds the float network, which stays"):
        export_int8(float_folder, float_folder, loaded, str(colours), workers=0)
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_what_a_quantiser_printed_is_in_the_error(float_folder, tmp_path):
    broken = shutil.copytree(float_folder, tmp_path / "broken")
    with pytest.raises(InputError, match="could not be quantised; what was printed:\n(.|\n)*Error"):
        quantize(broken, [{"wrong name": np.zeros(1)}], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
