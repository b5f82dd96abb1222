import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.coco_writer import CocoWriter, coco_of_predictions
from botformer.data.detection.dataset import Category
from botformer.rle import encode_window
from tests.data.detection.coco_files import disc

RNG = np.random.default_rng(0)
MASKS = {
    "empty": np.zeros((5, 7), bool),
    "full": np.ones((5, 7), bool),
    "first pixel": np.eye(1, 35, dtype=bool).reshape(5, 7),
    "last pixel": np.eye(1, 35, 34, dtype=bool).reshape(5, 7),
    "one pixel": np.ones((1, 1), bool),
    "disc": disc(300, 200, 80, 120, 60),
    "noise": RNG.random((64, 48)) < 0.5,
    "long runs": disc(3000, 2000, 2000, 0, 1500),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_counts_are_the_string_that_pycocotools_writes(mask):
    expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert encode_window(mask, (0, 0), mask.shape)["counts"] == expected


def test_area_and_box_are_those_of_the_mask(tmp_path):
    cell, crumb = Category(3, "cell"), Category(8, "Krümel")
    writer = CocoWriter([cell, crumb])
    writer.add_image("b.png", 30, 40)
    writer.add_object(disc(30, 40, 12, 10, 6), cell)
    writer.add_object(disc(30, 40, 39, 29, 4), crumb, crowd=True)
    writer.add_image("a.png", 20, 20)
    writer.save(tmp_path / "annotations" / "instances_train.json")

    (tmp_path / "train").mkdir()
    source = open_coco(tmp_path / "annotations" / "instances_train.json", tmp_path / "train")
    assert source.categories == (cell, crumb)
    assert not source.problems
    empty, full = source.image(0), source.image(1)
    assert (empty.file, empty.width, empty.height, empty.annotations) == ("a.png", 20, 20, ())
    assert (full.file, full.width, full.height) == ("b.png", 40, 30)
    for annotation, mask in zip(full.annotations, (disc(30, 40, 12, 10, 6), disc(30, 40, 39, 29, 4)), strict=True):
        runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert annotation.box_xywh == tuple(coco_mask.toBbox(runs))
        assert annotation.area_px == coco_mask.area(runs)
    assert [(a.label, a.crowd) for a in full.annotations] == [(1, False), (2, True)]
    record = json.loads((tmp_path / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
    assert [a["id"] for a in record["annotations"]] == [1, 2]


def test_polygons_stay_and_their_area_is_that_of_their_union():
    segmentation = [[2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0], [7.0, 2.0, 17.0, 2.0, 17.0, 12.0, 7.0, 12.0]]
    record = {"image_id": "a", "category_id": 3, "bbox": [2.0, 2.0, 15.0, 10.0], "segmentation": segmentation}
    known = {"images": [{"id": "a", "file_name": "a.png", "width": 20, "height": 20}], "categories": []}
    content = coco_of_predictions([record], known)
    assert content["annotations"] == [record | {"id": 1, "image_id": 1, "area": 150.0, "iscrowd": 0}]
