"""Predictions for other programs. What they read is compared with what was predicted."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from botformer import cli
from botformer.data.detection.coco_reader import open_coco
from tests.data.detection.label_studio.predictions import CATEGORIES, SIZES, box_of, images, masks, records


@pytest.fixture
def predicted(tmp_path):
    """A folder of predictions, and the images of it."""
    names = [tmp_path / "photos" / name for name in ("a b.png", "ü.png")]
    for name, (height, width) in zip(names, SIZES.values(), strict=True):
        name.parent.mkdir(exist_ok=True)
        Image.new("RGB", (width, height)).save(name)
    folder = tmp_path / "predictions"
    folder.mkdir()
    (folder / "predictions.json").write_text(json.dumps(records()))
    (folder / "images.json").write_text(json.dumps(images(*map(str, names))))
    return folder


def coco_file(predicted, *options):
    assert cli.main(["convert", str(predicted), "--to", "coco", *options]) == 0
    return predicted / "instances_predictions.json"


def test_pycocotools_reads_the_file(predicted):
    coco = COCO(coco_file(predicted))
    assert coco.loadCats(coco.getCatIds()) == CATEGORIES
    for image_id, shapes in masks().items():
        found = coco.loadAnns(coco.getAnnIds(image_id))
        assert [each["score"] for each in found] == [0.9, 0.6]
        for annotation, mask in zip(found, shapes, strict=True):
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum() == coco_mask.area(annotation["segmentation"])
            assert annotation["bbox"] == box_of(mask)


def test_supervision_reads_the_file(predicted):
    supervision = pytest.importorskip("supervision")
    photos = predicted.parent / "photos"
    dataset = supervision.DetectionDataset.from_coco(str(photos), str(coco_file(predicted)), force_masks=True)
    assert dataset.classes == [category["name"] for category in CATEGORIES]
    assert len(dataset) == 2
    for (path, _, found), shapes in zip(sorted(dataset, key=lambda each: each[0]), masks().values(), strict=True):
        assert path.startswith(str(photos))
        assert np.array_equal(found.mask, np.stack(shapes))
        assert found.class_id.tolist() == [0, 1]


def test_what_is_written_can_be_trained_on(predicted):
    dataset = open_coco(coco_file(predicted), predicted.parent / "photos", max_bad_records=0)
    assert (len(dataset), dataset.objects) == (2, 4)
    assert not dataset.problems


def test_ids_that_are_names_become_numbers(predicted):
    for name in ("predictions.json", "images.json"):
        text = (predicted / name).read_text()
        for number in SIZES:
            for key in ("image_id", "id"):
                text = text.replace(f'"{key}": {number},', f'"{key}": "scan {number}",')
        (predicted / name).write_text(text)
    content = json.loads(coco_file(predicted).read_text())
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert [each["image_id"] for each in content["annotations"]] == [1, 1, 2, 2]


def test_the_way_to_label_studio(predicted, capsys):
    assert cli.main(["convert", str(predicted), "--to", "label_studio", "--threshold", "0"]) == 0
    tasks = json.loads((predicted / "label_studio.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=photos/a%20b.png",
        "/data/local-files/?d=photos/%C3%BC.png",
    ]
    assert (predicted / "label_studio.xml").read_text().startswith("<View>")
    said = capsys.readouterr().out
    assert "6 brushlabels on 2 images" in said
    assert f"DOCUMENT_ROOT={predicted.parent}" in said.replace("\n", "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "coco", "--threshold", "2"], "a score between 0 and 1"),
        (["--to", "coco"], "is not there; expected the folder"),
    ],
)
def test_mistakes(tmp_path, options, words, capsys):
    assert cli.main(["convert", str(tmp_path), *options]) == 2
    assert words in capsys.readouterr().err


def test_files_that_are_none_of_predict(predicted, capsys):
    (predicted / "images.json").write_text("[]")
    assert cli.main(["convert", str(predicted), "--to", "coco"]) == 2
    assert "holds a list, expected a dict" in capsys.readouterr().err
    (predicted / "predictions.json").write_text("[{")
    assert cli.main(["convert", str(predicted), "--to", "coco"]) == 2
    assert "is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["coco", "label_studio"])
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("images.json", {"images": [{}]}),
        ("images.json", {"images": [7]}),
        ("images.json", {"categories": [[]]}),
        ("images.json", {"categories": {}}),
        ("predictions.json", [7]),
        ("predictions.json", [{"score": "high"}]),
        ("predictions.json", [{"score": 1, "image_id": [], "category_id": 1}]),
    ],
)
def test_files_of_another_shape_are_named(predicted, to, file, change, capsys):
    content = json.loads((predicted / file).read_text())
    (predicted / file).write_text(json.dumps(content | change if isinstance(change, dict) else change))
    assert cli.main(["convert", str(predicted), "--to", to]) == 2
    assert re.search("holds something else|not among the images", capsys.readouterr().err.replace("\n", " "))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "label_studio", "--out", "tasks.xml"], "--out is the file of the tasks, such as tasks.json"),
        (["--to", "coco", "--shapes", "box"], "--shapes is for --to label_studio; leave it out"),
        (["--to", "coco", "--at", "s3://b/"], "--at is for --to label_studio"),
        (["--to", "classes", "--threshold", "0.7"], "--threshold is for --to label_studio and coco"),
    ],
)
def test_options_that_would_do_nothing_or_harm_are_refused(predicted, options, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["convert", str(predicted), *options]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("*.xml"))


def test_the_folder_of_the_file_is_made_and_images_elsewhere_are_said(predicted, tmp_path, monkeypatch, caplog):
    content = json.loads((predicted / "images.json").read_text())
    for image in content["images"]:
        image["file_name"] = "photos/" + image["file_name"].rpartition("/")[2]
    (predicted / "images.json").write_text(json.dumps(content))
    coco_file(predicted, "--out", str(tmp_path / "new" / "deep" / "a.json"))
    assert (tmp_path / "new" / "deep" / "a.json").is_file()
    assert "is not in this folder, nor are others" in caplog.text
    caplog.clear()
    monkeypatch.chdir(tmp_path)
    coco_file(predicted)
    assert not caplog.text


def test_names_that_are_not_utf_8_become_addresses(predicted):
    content = json.loads((predicted / "images.json").read_text())
    content["images"][0]["file_name"] = os.fsdecode(b"/photos/gr\xf6\xdfe.png")
    (predicted / "images.json").write_text(json.dumps(content))
    assert cli.main(["convert", str(predicted), "--to", "label_studio"]) == 0
    tasks = json.loads((predicted / "label_studio.json").read_text())
    assert any(task["data"]["image"].endswith("gr%F6%DFe.png") for task in tasks)


def test_a_file_that_is_not_written_may_be_there(predicted):
    (predicted.parent / "objects.xml").write_text("mine")
    assert cli.main(["convert", str(predicted), "--to", "coco", "--out", str(predicted.parent / "objects.json")]) == 0
    assert (predicted.parent / "objects.xml").read_text() == "mine"


@pytest.mark.parametrize("there", ["photos/a b.png", "tasks.json", "tasks.xml", "predictions/images.json"])
def test_a_file_that_is_there_is_not_replaced(predicted, there, capsys):
    file = predicted.parent / there
    if not file.exists():
        file.write_text("mine")
    before, out = file.read_bytes(), file.with_suffix(".json") if file.suffix == ".xml" else file
    assert cli.main(["convert", str(predicted), "--to", "label_studio", "--out", str(out)]) == 2
    assert f"{file} exists, and would be replaced" in capsys.readouterr().err.replace("\n", " ")
    assert file.read_bytes() == before


def test_a_folder_is_no_file(predicted, capsys):
    assert cli.main(["convert", str(predicted), "--to", "coco", "--out", str(predicted.parent)]) == 2
    assert "is a folder; name the file in it" in capsys.readouterr().err.replace("\n", " ")
