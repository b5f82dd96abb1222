"""run.py where neither botformer nor PyTorch can be imported, against the predictor's own classification."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import botformer
from botformer.create import Loaded
from botformer.deploy.export import export
from tests.deploy.exported_networks import needs_export, sharp_network

pytestmark = needs_export
# One grey level in some 2 of 1000 pixels differs, between Pillow's resampling and PyTorch's.
PROBABILITY = 0.01


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Real ones: turned by EXIF or by TIFF's own tag, oblong, with alpha, of greys beyond 8 bits, smaller than the
    network's square, one pixel."""
    sklearn = pytest.importorskip("sklearn", reason="needs the extra 'demo'")
    folder = tmp_path_factory.mktemp("größe 1")
    photo = Image.open(Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg")
    for orientation in (1, 3, 6, 7):
        exif = Image.Exif()
        exif[274] = orientation
        photo.save(folder / f"turned {orientation}.jpg", exif=exif, quality=90)
    photo.save(folder / "two pictures.jpg", "MPO", save_all=True, append_images=[photo.rotate(180)], quality=90)
    photo.crop((0, 200, 640, 260)).save(folder / "oblong.png")
    photo.resize((31, 40)).convert("L").save(folder / "small.png")
    photo.resize((1, 1)).save(folder / "pixel.png")
    transparent = photo.convert("RGBA")
    transparent.putalpha(photo.convert("L"))
    transparent.save(folder / "alpha.png")
    for orientation in (3, 6):
        photo.crop((0, 0, 120, 50)).save(folder / f"turned {orientation}.tif", tiffinfo={274: orientation})
    grey = np.asarray(photo.convert("L").resize((90, 70)))
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(grey.astype(np.int32) * 9000 - 7).save(folder / "deeper.tif")
    Image.fromarray((grey / 255).astype(np.float32)).save(folder / "fractions.tif")
    Image.fromarray(grey.astype(np.float32) * 3 - 50).save(folder / "temperatures.tif")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def network():
    model = sharp_network("resnet_nano", num_classes=6)
    model.fc.weight.data *= 30  # classes that differ
    return model


def run(folder, files, tmp_path, hidden=("botformer", "torch", "torchvision", "timm")):
    for name in hidden:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is not there')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):  # either keeps a runtime quiet
        environment.pop(name, None)
    environment["PYTHONIOENCODING"] = "cp1252"  # as where the output goes into a file on Windows
    return subprocess.run(
        [sys.executable, str(folder / "run.py"), *map(str, files)],
        capture_output=True, encoding="utf-8", env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "fit"), [("onnx", "crop"), ("openvino", "letterbox")])  # lines of their own for each
def test_the_answers_are_those_of_the_predictor(name, fit, network, photographs, tmp_path):
    config = botformer.model_config(network, ["a", "b", "ö", "細胞", "e", "f"])
    config["images"] |= {"fit": fit, "size": 64}
    folder = export(name, network, tmp_path / "größe", config, size=(64, 64), batch=None if fit == "crop" else 1)
    ran = run(folder, photographs, tmp_path)
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["file_name"] for line in lines] == [str(file) for file in photographs]
    results = botformer.predictor(Loaded(network, config), "cpu")(photographs)
    for file, result, line in zip(photographs, results, lines, strict=True):
        mine = dict(zip(result.labels, result.probabilities, strict=True))
        assert {key: pytest.approx(value, abs=PROBABILITY) for key, value in mine.items()} == dict(line["top5"]), file
    # Both runtimes keep an id of the machine there when they report.
    assert list((tmp_path / "home").iterdir()) == []
    # A bad file is a line, and the one after it is answered.
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.png").write_bytes(photographs[0].read_bytes()[:3000])
    bad = [tmp_path / "nowhere.jpg", tmp_path / "empty.jpg", tmp_path / "cut.png", tmp_path]
    (tmp_path / "again").mkdir()
    ran = run(folder, [*bad, photographs[0]], tmp_path / "again")
    *told, last = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["file_name"] for line in told if line["error"]] == [str(file) for file in bad]
    assert (last, ran.returncode) == (lines[0], 2)
    usage = subprocess.run([sys.executable, folder / "run.py"], capture_output=True, text=True, check=False)
    assert usage.returncode == 1
    assert usage.stderr == "usage: python run.py IMAGE...\n"


def test_backbones_save_their_maps_and_pytorchs_own_format_needs_no_botformer(photographs, tmp_path):
    folder = export("torch", sharp_network("resnet_nano", backbone=True), tmp_path / "x", size=(40, 56), batch=1)
    (tmp_path / "other").mkdir()
    one, other = photographs[-1], tmp_path / "other" / photographs[-1].name
    Image.new("RGB", (50, 50)).save(other)
    ran = run(folder, [one, other, one], tmp_path, hidden=("botformer", "torchvision", "timm"))
    assert ran.returncode == 0, ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["saved"] for answer in answers] == [f"{one.stem}{end}.npz" for end in ("", "-2", "-3")]
    c5 = []
    for answer in answers:
        with np.load(tmp_path / answer["saved"]) as maps:
            assert {name: list(maps[name].shape) for name in maps} == answer["shapes"]
            c5.append(maps["c5"])
    assert answer["shapes"]["c5"] == [1, 256, 5, 7]
    assert np.array_equal(c5[0], c5[2])
    assert not np.array_equal(c5[0], c5[1])


def test_importing_a_runtime_reports_nothing_and_leaves_no_switch(tmp_path):
    """Another program's openvino_telemetry can still be imported afterwards, and the environment is as it was."""
    (tmp_path / "openvino_telemetry.py").write_text("open('imported', 'a').close()")
    (tmp_path / "home").mkdir()
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "HOME": str(tmp_path / "home")}
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):  # either keeps a runtime quiet
        environment.pop(name, None)
    code = (
        "import os, sys; from botformer.deploy import no_telemetry; before = dict(os.environ);"
        "no_telemetry.import_onnxruntime(); assert callable(no_telemetry.import_openvino().convert_model);"
        "assert 'openvino_telemetry' not in sys.modules and before == dict(os.environ)"
    )
    later = "assert not os.path.exists('imported'); import openvino_telemetry; assert os.path.exists('imported')"
    subprocess.run([sys.executable, "-c", f"{code}; {later}"], env=environment, cwd=tmp_path, check=True)
    assert list((tmp_path / "home").iterdir()) == []
