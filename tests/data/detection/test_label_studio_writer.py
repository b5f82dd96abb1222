import json
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from botformer.data.detection.label_studio_reader import open_label_studio
from botformer.data.detection.label_studio_writer import (
    below_one_folder,
    label_studio_annotations,
    label_studio_tasks,
    labeling_config,
    mask_polygons,
)
from tests.data.detection.label_studio.predictions import CATEGORIES, SIZES, box_of, images, masks, records

NAMES = ("a b.jpg", "sub/ü.jpg")


def accepted(tasks, root: Path):
    """As an export of the tasks after somebody has accepted every prediction; read again."""
    for name, (height, width) in zip(NAMES, SIZES.values(), strict=True):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (width, height)).save(root / name)
    export = [
        {"id": number, "data": task["data"], "annotations": [{"result": task["predictions"][0]["result"]}]}
        for number, task in enumerate(tasks)
    ]
    return open_label_studio(json.loads(json.dumps(export)), root / "export.json", root, 0)


def test_brush_strokes_come_back_as_the_masks_they_were(tmp_path):
    dataset = accepted(label_studio_tasks(records(), images(*NAMES)), tmp_path)
    assert {category.name for category in dataset.categories} == {category["name"] for category in CATEGORIES}
    for index, shapes in enumerate(masks().values()):
        found = dataset.image(index).annotations
        assert len(found) == 2  # without the doubtful one
        for annotation, mask in zip(found, shapes, strict=True):
            assert np.array_equal(coco_mask.decode(annotation.segmentation), mask)


def test_polygons_come_back_nearly_as_the_masks_they_were(tmp_path):
    dataset = accepted(label_studio_tasks(records(), images(*NAMES), shapes="polygon"), tmp_path)
    for index, shapes in enumerate(masks().values()):
        for annotation, mask in zip(dataset.image(index).annotations, shapes, strict=True):
            drawn = coco_mask.decode(coco_mask.frPyObjects(annotation.segmentation, *mask.shape)[0])
            assert (drawn.astype(bool) & mask).sum() / (drawn.astype(bool) | mask).sum() > 0.95


@pytest.mark.parametrize("kind", ["no masks", "box"])
def test_boxes_come_back_as_they_were(tmp_path, kind):
    shapes = "box" if kind == "box" else "brush"
    dataset = accepted(label_studio_tasks(records(kind == "box"), images(*NAMES), shapes=shapes), tmp_path)
    for index, known in enumerate(masks().values()):
        for annotation, mask in zip(dataset.image(index).annotations, known, strict=True):
            assert annotation.box_xywh == pytest.approx(box_of(mask))
            assert annotation.segmentation is None


def test_the_threshold_and_the_score_of_a_task():
    all_of_them, none = (label_studio_tasks(records(), images(*NAMES), threshold) for threshold in (0.0, 0.95))
    assert [len(task["predictions"][0]["result"]) for task in all_of_them] == [3, 3]
    assert [task["predictions"][0]["score"] for task in all_of_them] == [0.2, 0.2]
    assert [task["predictions"] for task in none] == [[{"model_version": "botformer", "result": []}]] * 2


def test_key_points_belong_to_their_box():
    points = [10.0, 20.0, 1, 0.0, 0.0, 0]
    record = {"image_id": 1, "category_id": 3, "bbox": [1.0, 2.0, 30.0, 40.0], "score": 0.8, "keypoints": points}
    task, _ = label_studio_tasks([record], images(*NAMES, keypoints=["nose", "tail"]))
    box, nose = task["predictions"][0]["result"]
    assert nose["parentID"] == box["id"]
    assert nose["value"]["keypointlabels"] == ["nose"]
    assert nose["value"]["x"] == pytest.approx(100 * 10.5 / 64)  # COCO's 10 is the middle of the eleventh pixel


def test_classes_are_choices():
    known = [{"file_name": name, "top5": [["cat", 0.7], ["dog", 0.3]]} for name in NAMES]
    tasks = label_studio_tasks(known, images(*NAMES))
    (choice,) = tasks[0]["predictions"][0]["result"]
    assert (choice["type"], choice["value"], choice["score"]) == ("choices", {"choices": ["cat"]}, 0.7)
    config = ElementTree.fromstring(labeling_config(tasks, images(*NAMES)))
    assert [each.get("value") for each in config.iter("Choice")] == [each["name"] for each in CATEGORIES]


@pytest.mark.parametrize("shapes", ["brush", "polygon", "box"])
def test_every_result_has_its_control_in_the_interface(shapes):
    tasks = label_studio_tasks(records(), images(*NAMES), shapes=shapes)
    config = ElementTree.fromstring(labeling_config(tasks, images(*NAMES)))
    controls = {each.get("name"): each for each in config if each.get("toName") == "image"}
    for task in tasks:
        for result in task["predictions"][0]["result"]:
            labels = {label.get("value") for label in controls[result["from_name"]]}
            assert set(result["value"][result["type"]]) <= labels


@pytest.mark.parametrize(("at", "quoted"), [("/data/local-files/?d=", True), ("https://example.org/", False)])
def test_the_address_of_an_image(at, quoted):
    tasks = label_studio_tasks(records(), images(*NAMES), at=at)
    for task, name in zip(tasks, NAMES, strict=True):
        path = task["data"]["image"].removeprefix(at)
        assert (path != name) == quoted
        assert (unquote(path) if quoted else path) == name


def test_paths_below_one_folder():
    assert below_one_folder(["/a/b/x.jpg", "/a/b/c/y.jpg"]) == (
        "/a/b",
        {"/a/b/x.jpg": "x.jpg", "/a/b/c/y.jpg": "c/y.jpg"},
    )
    assert below_one_folder(["/a/x.jpg", "/b/x.jpg"])[0] == "/"
    assert below_one_folder(["/x.jpg"]) == ("/", {"/x.jpg": "x.jpg"})


def test_the_parts_of_a_mask_are_polygons_of_their_own_and_holes_are_filled():
    mask = np.zeros((40, 50), dtype=bool)
    mask[5:20, 5:20] = mask[25:35, 30:45] = True
    mask[10:13, 10:13] = False
    mask[0, 49] = True  # a crumb
    polygons = mask_polygons(mask)
    assert sorted(tuple(each.min(0)) + tuple(each.max(0)) for each in polygons) == [(5, 5, 20, 20), (30, 25, 45, 35)]
    assert mask_polygons(np.zeros((3, 3), dtype=bool)) == []
    assert len(mask_polygons(np.ones((1, 1), dtype=bool))) == 1


def test_polygons_stay_the_polygons_they_were():
    triangle = [5.0, 5.0, 25.0, 6.5, 12.0, 30.0]
    record = {"image_id": 1, "category_id": 3, "bbox": [5.0, 5.0, 20.0, 25.0], "segmentation": [triangle]}
    tasks = label_studio_annotations([record], images(*NAMES))
    assert [task.keys() for task in tasks] == [{"data", "annotations"}] * 2
    (drawn,) = tasks[0]["annotations"][0]["result"]
    assert "score" not in drawn
    height, width = SIZES[1]
    flat = [side * length / 100 for x, y in drawn["value"]["points"] for side, length in ((x, width), (y, height))]
    np.testing.assert_allclose(flat, triangle)
    assert "<PolygonLabels" in labeling_config(tasks, images(*NAMES))
