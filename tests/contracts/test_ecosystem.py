"""The Python of docs/ecosystem.md runs as it stands there, on files of the tests."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from botformer import cli
from botformer.training.trackers import Trackers
from tests.contracts.test_readme import python_blocks
from tests.data.detection.label_studio.predictions import SIZES, images, records

ROOT = Path(__file__).parents[2]
HUB, SUPERVISION, TRACKER = python_blocks(ROOT / "docs/ecosystem.md")


def test_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"run": ROOT / "tests/fixtures/classifier_run"}
    exec(HUB, names)
    assert names["network"](torch.rand(1, 3, 16, 16)).shape == (1, 2)
    assert "photographs of our litter" in (tmp_path / "to_publish" / "README.md").read_text()


def test_supervision(tmp_path, capsys):
    pytest.importorskip("supervision")
    files = [tmp_path / "photos" / name for name in ("1.png", "2.png")]
    files[0].parent.mkdir()
    for file, (height, width) in zip(files, SIZES.values(), strict=True):
        Image.new("RGB", (width, height)).save(file)
    (tmp_path / "predictions.json").write_text(json.dumps(records()))
    (tmp_path / "images.json").write_text(json.dumps(images(*map(str, files))))
    assert cli.main(["convert", str(tmp_path), "--to", "coco"]) == 0
    exec(SUPERVISION, {"images": str(tmp_path / "photos"), "predicted": tmp_path})
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 ['cat'")


def test_a_tracker_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_module.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(tmp_path)
    trackers = Trackers(("my_module:Printer",), tmp_path, {"run.seed": 0}, 0, {}, pytest.fail)
    trackers.log({"kind": "train", "step": 3, "loss": 0.5})
    trackers.close()
    assert capsys.readouterr().out == "3 {'train/loss': 0.5}\n"
