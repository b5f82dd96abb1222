"""Int8 from an exported network to the verdict in its folder, with the packages that quantise."""

import json
import logging
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

import botformer
from botformer import cli
from botformer.deploy import int8, to_openvino
from botformer.deploy.deployed_accuracy import DeployedAccuracy
from botformer.deploy.export import export
from botformer.deploy.exported_folder import check_files, new_folder, read_config, write_config
from botformer.deploy.formats import FORMATS
from botformer.deploy.gate import Verdict
from botformer.deploy.int8 import export_int8, quantize
from botformer.deploy.quantizers import PACKAGES
from botformer.deploy.runtimes import open_exported
from botformer.errors import InputError
from tests.commands.detection_scenes import save_detector, write_scenes
from tests.deploy.test_deployed_accuracy import CLASSIFIER, InPyTorch, colours  # noqa: F401

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
        if not all(map(find_spec, NEEDED[name])):  # nncf and onnxruntime would report to their makers when imported
            pytest.skip('needs the extra "export"')
        out = tmp_path_factory.mktemp("float") / "größe 1"
        if name != "openvino":
            return export(name, sharp, out)
        with pytest.MonkeyPatch.context() as patch:  # it reads an ONNX file, which takes long to write
            file = folder("onnx") / "model.onnx"
            patch.setattr(to_openvino, "write_onnx", lambda _, precision, copy: shutil.copy(file, copy))
            return export(name, sharp, out)

    return folder


@pytest.fixture(scope="module")
def int8_folders(float_folders):
    """Format -> the same classifier in int8, quantised once."""

    @cache
    def folder(name):
        made = float_folders(name).with_name("größe 1-int8")  # by the test above, unless it runs elsewhere
        return made if made.is_dir() else quantize(float_folders(name), [{"pixels": pixels} for pixels in images(8)])

    return folder


@pytest.fixture(scope="module")
def float_folder(float_folders):
    return float_folders("onnx")


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
    assert {"botformer", *PACKAGES[config["format"]], *FORMATS[config["format"]].to_run} <= set(config["versions"])
    float_bytes, int8_bytes = (
        sum(file.stat().st_size for file in each.glob("model.*")) for each in (float_folder, folder)
    )
    if config["format"] != "torch":
        assert int8_bytes < 0.75 * float_bytes  # a nano network is a graph for the most
    how = {"openvino": '"INFERENCE_PRECISION_HINT": "bf16"', "torch": "import torchao", "onnx": "onnxruntime"}
    assert how[name] in (folder / "run.py").read_text(encoding="utf-8")
    expected, found = open_exported(float_folder), open_exported(folder)
    for shape in ((1, 3, SIDE, SIDE), (2, 3, 97, 65)):
        pixels = np.random.default_rng(1).random(shape, dtype=np.float32)
        logits = expected(pixels=pixels)["logits"]
        error = np.linalg.norm(found(pixels=pixels)["logits"] - logits) / np.linalg.norm(logits)
        assert 1e-6 < error < 0.2, error  # eight bits, some thirty layers, random weights


@pytest.mark.parametrize(
    ("name", "counts"), [("openvino", (*range(1, 18), 32, 64)), ("onnx", (1, 2, 7, 64)), ("torch", (1, 2, 17))]
)
def test_an_image_gets_the_same_answer_in_every_batch_and_from_run_py(name, counts, int8_folders, tmp_path):
    """Twice in each: OpenVINO has a graph for any size, and one of its own for a size that comes again."""
    folder = int8_folders(name)
    runtime = open_exported(folder)
    config = read_config(folder)
    whole = int(SIDE / config["preprocessing"]["evaluation_crop"])
    files, crops, left = [], [], round((whole - SIDE) / 2)
    for number, image in enumerate(np.random.default_rng(2).integers(0, 256, (64, whole, whole, 3), np.uint8)):
        files.append(tmp_path / f"{number}.png")
        crops.append(image[left : left + SIDE, left : left + SIDE].transpose(2, 0, 1).astype(np.float32) / 255)
        Image.fromarray(image).save(files[-1])
    alone = np.concatenate([runtime(pixels=crop[None])["logits"] for crop in crops[: min(64, counts[-1])]])
    for count in counts:
        for _ in range(2 if name == "openvino" else 1):
            found = runtime(pixels=np.stack(crops[:count]))["logits"]
            errors = np.linalg.norm(found - alone[:count], axis=1) / np.linalg.norm(alone[:count], axis=1)
            assert errors.max() < 0.02, count  # PyTorch's rounding depends on the batch, and moves some steps of int8
    if name == "torch":
        return  # its run.py takes long to start
    ran = subprocess.run([sys.executable, folder / "run.py", *files[:3]], capture_output=True, text=True, check=True)
    for line, logits in zip(ran.stdout.splitlines(), alone[:3], strict=True):
        expected = dict(zip(config["class_names"], torch.from_numpy(logits).double().softmax(0).tolist(), strict=True))
        found = dict(json.loads(line)["top5"])
        assert found == {label: pytest.approx(expected[label], rel=1e-3) for label in found}


def test_a_network_whose_answers_depend_on_the_batch_is_not_kept(colours, tmp_path, stand_ins, capsys):  # noqa: F811
    stand_ins["batches"] = InputError("the same images get other logits in another batch")
    assert call(CLASSIFIER, tmp_path / "x", "--data", colours) == 2
    assert "get other logits in another batch" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x-float32"]


@pytest.fixture
def stand_ins(monkeypatch):
    """In place of an exporter, a quantiser and the gate; what they were given."""
    given = {"verdict": KEPT, "batches": {"64": 0.0}}

    def write_float(format_name, model, folder, model_config, precision, size, images, **_):
        given["images"] = images
        pixels = [1, 3, *(size or ("height", "width"))]
        inputs = [
            {"name": "pixels", "shape": pixels, "dtype": "float32"},
            {"name": "sizes", "shape": [1, 2], "dtype": "float32"},
        ]
        config = {"format": format_name, "precision": precision, "task": model_config["task"]}
        config |= {"inputs": inputs, "outputs": []}
        with new_folder(folder) as unfinished:
            (unfinished / "model.xml").write_text("float")
            (unfinished / "run.py").write_text("run")
            write_config(unfinished, config | {"versions": {}, "checked": [{"inputs": {}, "differences": {}}]})

    def quantize_samples(paths, *_):
        _, out, _, samples = paths
        given["samples"] = [dict(np.load(file)) for file in sorted(samples.iterdir())]
        out.write_text("int8")

    def check_batches(runtime, images):
        given["compared"] = images
        if isinstance(given["batches"], InputError):
            raise given["batches"]
        return given["batches"]

    def gate(float_folder, int8_folder, evaluate, limit, inputs, scale):
        given.update({"evaluate": evaluate, "limit": limit, "inputs": inputs})
        return given["verdict"]

    monkeypatch.setattr("botformer.deploy.export.export", write_float)
    monkeypatch.setattr(int8, "_run_quantizer", quantize_samples)
    monkeypatch.setattr(int8, "open_model", lambda config, folder: folder)
    monkeypatch.setattr(int8, "check_batches", check_batches)
    monkeypatch.setattr(int8, "gate", gate)
    monkeypatch.setattr(int8, "find_spec", lambda name: name)
    return given


def call(checkpoint, out, *more):
    return cli.main(
        ["export", str(checkpoint), "--format", "openvino", "--precision", "int8", "--out", str(out), *map(str, more)]
    )


def test_the_command_keeps_int8_beside_the_float_network(colours, tmp_path, stand_ins, capsys):  # noqa: F811
    assert call(CLASSIFIER, tmp_path / "x") == 2
    assert "give the training's folder as --data" in capsys.readouterr().err
    assert call(CLASSIFIER, tmp_path / "x", "--data", colours) == 0
    assert "int8 is kept: float32 2 ms and top1 0.9000, int8 1 ms" in capsys.readouterr().out
    config = read_config(tmp_path / "x")
    assert config["int8"]["kept"]
    assert config["int8"]["too_few"]
    assert config["int8"]["batches"] == {"64": 0.0}
    assert len(stand_ins["compared"]) == 8
    assert config["precision"] == "int8"
    assert config["calibration_images"] == len(stand_ins["samples"]) == 10
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"config.json", "model.xml", "run.py"}
    assert read_config(tmp_path / "x-float32")["precision"] == "float32"
    assert stand_ins["limit"] == 0.01
    assert {image.shape for image in stand_ins["images"]} == {(3, 16, 16)}
    assert {sample["pixels"].shape for sample in stand_ins["samples"]} == {(1, 3, 16, 16)}
    check_files(tmp_path / "x", config)


def test_another_size_is_measured_in_that_size(colours, tmp_path, stand_ins):  # noqa: F811
    assert call(CLASSIFIER, tmp_path / "x", "--data", colours, "--size", 24) == 0
    assert {image.shape for image in stand_ins["images"]} == {(3, 24, 24)}
    assert {sample["pixels"].shape for sample in stand_ins["samples"]} == {(1, 3, 24, 24)}


def test_a_detector_is_calibrated_on_its_data_and_gated_by_its_ap(tmp_path, stand_ins):
    network = save_detector(tmp_path / "random.safetensors")
    annotations = write_scenes(tmp_path / "data", network)
    shutil.copytree(tmp_path / "data/val", tmp_path / "data/train")
    shutil.copy(annotations, annotations.with_name("instances_train.json"))
    assert call(network, tmp_path / "x", "--data", tmp_path / "data") == 0
    shapes = [tuple(sample["sizes"][0]) for sample in stand_ins["samples"]]
    assert sorted(shapes) == sorted(image.shape[1:] for image in stand_ins["images"])
    assert {sample["pixels"].shape for sample in stand_ins["samples"]} == {(1, 3, 96, 96)}
    loaded = botformer.load(network)
    config = {"inputs": [{"name": "pixels", "shape": [1, 3, 96, 96]}, {"name": "sizes", "shape": [1, 2]}]}
    score = stand_ins["evaluate"](InPyTorch(loaded.model, config))
    expected = DeployedAccuracy(loaded, config, str(tmp_path / "data"), workers=0)
    assert score == expected.measure(InPyTorch(loaded.model, config)) > 0.01
    assert expected.scale.metric == "mask_AP"


def test_the_command_refuses_with_both_figures_and_leaves_the_float_network(colours, tmp_path, stand_ins, capsys):  # noqa: F811
    stand_ins["verdict"] = replace(KEPT, int8_score=0.5, int8_ms=3.0, speedup=0.67)
    assert call(CLASSIFIER, tmp_path / "x", "--data", colours) == 2
    said = capsys.readouterr().err
    assert "not faster and it loses more than 0.01 of top1" in said
    assert "float32 2 ms and top1 0.9000, int8 3 ms and 0.5000" in said
    assert f"The float network stays in {tmp_path / 'x-float32'}" in said
    assert [path.name for path in tmp_path.iterdir()] == ["x-float32"]
    check_files(tmp_path / "x-float32", read_config(tmp_path / "x-float32"))


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
    config = {"botformer_export": 1, "format": "openvino", "precision": "float16", "task": "classification"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"inputs": [], "outputs": [], "files": {}}))
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
