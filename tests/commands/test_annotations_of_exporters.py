"""Annotation files as exporters write them, through the commands: the numbers are those of the tidy file."""

import json
import logging
import shutil

import pytest
from PIL import Image

from botformer import cli
from botformer.detection.evaluation.coco_eval import NUMBERS
from tests.data.detection.coco_files import annotation, content, image, write

from .detection_scenes import KNOWN, rewrite
from .test_detection_mistakes import QUICK, nucleus

pytest.importorskip("faster_coco_eval")


def annotations_of(data):
    return data / "annotations" / "instances_val.json"


def evaluate(network, data, out, *more):
    assert cli.main(["evaluate", str(network), "--data", str(data), "--out", str(out), "--workers=0", *more]) == 0
    return json.loads((out / "metrics.json").read_text()), json.loads((out / "predictions.json").read_text())


IDS = {11: 2**60, 12: 2**60 + 1, 13: -4, 14: "scan 14", 15: 0, 16: "7f", 17: 10**25}


def untidy(file):
    """The same objects: ids of any kind, paths of somebody's machine, nothing that can be found out."""
    tidy = json.loads(file.read_text(encoding="utf-8"))
    paths = ("images\\{}", "/home/ann/val/{}", "./{}", "val/{}")
    for place, record in enumerate(tidy["images"]):
        record |= {"id": IDS[record["id"]], "file_name": paths[place % 4].format(record["file_name"])}
        del record["width"], record["height"]
    for record in tidy["annotations"]:
        record["image_id"] = IDS[record["image_id"]]
        record["category_id"] = float(record["category_id"])
        record["bbox"] = list(map(str, record["bbox"]))
        del record["area"], record["id"]
        if not record["iscrowd"]:
            record["iscrowd"] = None
    text = json.dumps(tidy, indent=1).replace("\n", "\r\n")
    file.write_text("\ufeff" + text, encoding="utf-8", newline="")


def test_an_untidy_file_gives_the_numbers_of_the_tidy_one(network, data, copy, tmp_path, caplog):
    tidy, found = evaluate(network, data, tmp_path / "tidy")
    untidy(annotations_of(copy))
    with caplog.at_level(logging.INFO, "botformer.data"):
        metrics, results = evaluate(network, copy, tmp_path / "untidy")
    for kind in ("box", "mask"):
        for name in NUMBERS:
            assert metrics[kind][name] == pytest.approx(tidy[kind][name], abs=1e-12), (kind, name)
    assert metrics["objects"] == tidy["objects"]
    assert metrics["skipped"] == {"images": {}, "annotations": []}
    assert metrics["not_measured"]["objects"] == 0
    by_id = {IDS[number]: [r for r in found if r["image_id"] == number] for number in IDS}
    for image_id, expected in by_id.items():
        of_image = [result for result in results if result["image_id"] == image_id]
        assert of_image == [result | {"image_id": image_id} for result in expected]
    assert "7 images without a size that makes sense" in caplog.text
    assert "7 images lie under another path" in caplog.text

    files = [str(copy / "val" / f"{number}.png") for number in (11, 14)]
    arguments = ["--checkpoint", str(network), "--out", str(tmp_path / "out"), "--annotations"]
    assert cli.main(["predict", *files, *arguments, str(annotations_of(copy))]) == 0
    predicted = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {result["image_id"] for result in predicted} == {2**60, "scan 14"}
    listed = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [each["id"] for each in listed] == [2**60, "scan 14"]


def test_a_detector_of_a_coco_file_is_measured_on_a_yolo_folder(network, data, tmp_path):
    """YOLO counts categories from 0, in another order here, and lists one less than the detector knows."""
    coco = json.loads(annotations_of(data).read_text(encoding="utf-8"))
    names = [name for _, name in KNOWN][::-1]
    of_id = {number: names.index(name) for number, name in KNOWN}
    root = tmp_path / "yolo"
    (root / "labels" / "val").mkdir(parents=True)
    shutil.copytree(data / "val", root / "images" / "val")
    (root / "data.yaml").write_text(f"train: images/val\nval: images/val\nnames: {json.dumps(names)}\n", "utf-8")
    ignored = [record for record in coco["annotations"] if record["iscrowd"]]
    for record in coco["images"]:
        lines = []
        for found in coco["annotations"]:
            if found["image_id"] == record["id"] and found not in ignored:
                x, y, w, h = found["bbox"]
                sides = (x + w / 2) / record["width"], (y + h / 2) / record["height"]
                sides += w / record["width"], h / record["height"]
                lines.append(" ".join(map(repr, (of_id[found["category_id"]], *sides))))
        file = root / "labels" / "val" / record["file_name"]
        file.with_suffix(".txt").write_text("\n".join(lines), encoding="utf-8")
    without_crowds = shutil.copytree(data, tmp_path / "coco")
    rewrite(annotations_of(without_crowds), annotations=[each for each in coco["annotations"] if each not in ignored])
    tidy, _ = evaluate(network, without_crowds, tmp_path / "without")
    metrics, results = evaluate(network, root, tmp_path / "out")
    assert metrics["objects"] == tidy["objects"]
    assert tidy["box"]["AP"] > 0.03
    assert metrics["box"]["AP"] == pytest.approx(tidy["box"]["AP"], abs=0.01)
    rows = {row["name"]: (row["id"], row["objects"]) for row in metrics["box"]["per_class"]}
    expected = {row["name"]: row["objects"] for row in tidy["box"]["per_class"]}
    assert rows == {name: (number, expected[name]) for number, name in enumerate(names)}
    assert {result["category_id"] for result in results} <= set(range(len(names)))


def train(data, out, *more):
    arguments = ["train", "nuclei_mini", "--data", str(data), "--out", str(out), *QUICK, *more]
    return cli.main(arguments)


def test_training_says_what_is_too_small_and_what_is_a_crowd(tmp_path, capsys, caplog):
    """10 px in 2000x1500 on 128 px are 0.64 px; 4 px they are on 800, and in tiles of 320 px seen at 128."""
    for split, folder in (("train", "train"), ("val", "val")):
        images = [image(n, width=2000, height=1500) for n in (1, 2)]
        objects = [annotation(10 * n + k, n, [100 * k, 50, 10, 10]) for n in (1, 2) for k in range(3)]
        objects = [record | {"segmentation": square(*record["bbox"])} for record in objects]
        crowds = [objects[0] | {"id": 99, "iscrowd": 1}]
        small = content(images, objects + crowds)
        for record in images:  # written by hand: noise of so many pixels takes seconds
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2000, 1500)).save(tmp_path / "data" / folder / record["file_name"])
        file = tmp_path / "data" / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(small), encoding="utf-8")
    arguments = ("--images.size=128", "--images.test-size=128", "--images.scale-jitter", "1", "1")
    with caplog.at_level(logging.INFO, "botformer.data"):
        assert train(tmp_path / "data", tmp_path / "out", *arguments) == 0
    seen = " ".join(caplog.text.split())
    for split in ("train", "val"):
        where = tmp_path / "data" / "annotations" / f"instances_{split}.json"
        assert f"{where}: on the canvas of 128 px 6 of 6 objects (100.0 %) are narrower or lower than 1 px" in seen
        assert f"{where}: 1 of 7 annotations are crowds (iscrowd: 1): background in training" in seen
    assert "--images.size 800 in training; or tiles of 320 px" in seen
    out = ["--checkpoint", str(tmp_path / "out"), "--out", str(tmp_path / "found"), "--threshold=1"]
    assert cli.main(["predict", str(tmp_path / "data" / "val" / "1.png"), *out]) == 0
    assert "seen 16 times smaller: try --tile" in " ".join(capsys.readouterr().out.split())


def square(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_shapes_that_are_none_and_a_subset_of_categories_are_trained_on(tmp_path, caplog):
    bad = ([[]], [[1, 2, 3, 4]], {"size": [3, 4], "counts": []}, [], None, "x")
    images = [image(number) for number in range(1, 5)]
    records = [nucleus(place, 1 + place % 4, segmentation=shape) for place, shape in enumerate(bad * 5)]
    write(tmp_path, content(images, [nucleus(99, 1), *records]))
    flat = nucleus(1, 1)
    flat |= {"segmentation": flat["segmentation"][0]}
    del flat["bbox"], flat["area"]
    write(tmp_path, content(images, [flat], [{"id": 7, "name": "cell"}]), "instances_val.json", "val")
    with caplog.at_level(logging.INFO, "botformer.data"):
        assert train(tmp_path, tmp_path / "out") == 0
    seen = " ".join(caplog.text.split())
    assert "instances_train.json: 31 objects of 3 categories in 4 images" in seen
    assert "20 annotations of which a part is left out or replaced" in seen
    assert "lists 1 of the 3 categories of" in seen
    metrics, _ = evaluate(tmp_path / "out", tmp_path, tmp_path / "evaluated", "--max-bad-records=0")
    assert metrics["objects"] == 1
