"""What is in a folder of images."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from botformer.data.classification.dataset import open_classification_dataset
from botformer.errors import InputError
from botformer.planning.look_at_data import image_facts, look


def write_images(folder, counts, size=(24, 16), first=0):
    """PNG images of noise in a folder per class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.random.default_rng(first + number).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def write_coco(root, splits=("train", "val"), shapes=True, points=False):
    """Four images per split with one object each."""
    (root / "annotations").mkdir(parents=True)
    for split in splits:
        (root / split).mkdir()
        annotations, images = [], []
        for number in range(1, 5):
            Image.new("RGB", (40, 30)).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 40, "height": 30})
            found = {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "bbox": [5, 5, 10, 10],
                "area": 100,
                "iscrowd": 0,
            }
            if shapes:
                found["segmentation"] = [[5, 5, 15, 5, 15, 15, 5, 15]]
            if points:
                found |= {"keypoints": [7, 7, 2, 12, 12, 2], "num_keypoints": 2}
            annotations.append(found)
        category = {"id": 1, "name": "thing"} | ({"keypoints": ["a", "b"], "skeleton": []} if points else {})
        content = {"images": images, "annotations": annotations, "categories": [category]}
        name = f"person_keypoints_{split}.json" if points else f"instances_{split}.json"
        (root / "annotations" / name).write_text(json.dumps(content), encoding="utf-8")


def test_class_folders_are_for_a_classifier(tmp_path):
    write_images(tmp_path / "train", {"a": 5, "b": 3})
    write_images(tmp_path / "val", {"a": 2, "b": 1})
    write_images(tmp_path / "test", {"a": 4, "b": 2})
    found = look(str(tmp_path), "auto")
    assert (found.verb, len(found.train), len(found.validation), found.test) == ("classify", 8, 3, 6)
    assert "8 images of 2 classes to train on, 3 to validate on, 6 to test on" in found.summary
    with pytest.raises(InputError, match="botformer train classify"):
        look(str(tmp_path), "detect")


def test_key_points_that_only_some_categories_have_are_left_out_unless_asked_for(tmp_path):
    write_coco(tmp_path, points=True)
    for file in (tmp_path / "annotations").iterdir():
        content = json.loads(file.read_text())
        content["categories"].append({"id": 2, "name": "ball"})
        file.write_text(json.dumps(content))
    found = look(str(tmp_path), "auto")
    assert found.verb == "segment"
    assert re.search("; key points are left out: .* a key point detector needs the same key points", found.summary)
    with pytest.raises(InputError, match="the same key points"):
        look(str(tmp_path), "keypoints")
    with pytest.raises(InputError, match="botformer train segment"):
        look(str(tmp_path), "classify")


def test_a_test_split_that_validates_is_not_measured_twice(tmp_path):
    write_images(tmp_path / "train", {"a": 5, "b": 3})
    write_images(tmp_path / "test", {"a": 4, "b": 2})
    found = look(str(tmp_path), "auto")
    assert (len(found.validation), found.test) == (6, 0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [({}, "segment"), ({"shapes": False}, "detect"), ({"points": True}, "keypoints")],
    ids=["shapes", "boxes", "key points"],
)
def test_annotations_say_which_detector(tmp_path, kind, expected):
    write_coco(tmp_path, ("train", "val", "test"), **kind)
    found = look(str(tmp_path), "auto")
    assert (found.verb, len(found.train), len(found.validation), found.test) == (expected, 4, 4, 4)
    with pytest.raises(InputError, match=f"botformer train {expected}"):
        look(str(tmp_path), "classify")
    assert look(str(tmp_path), "detect").verb == "detect"


def test_segment_without_shapes_becomes_boxes_and_says_so(tmp_path):
    write_coco(tmp_path, shapes=False)
    found = look(str(tmp_path), "segment")
    assert found.verb == "detect"
    assert "faster_rcnn" in found.summary
    with pytest.raises(InputError, match="no object .* has key points.*botformer train detect"):
        look(str(tmp_path), "keypoints")


def test_facts_of_images_are_counted(tmp_path):
    write_images(tmp_path, {"wide": 6}, size=(64, 16))
    write_images(tmp_path, {"tall": 2}, size=(20, 60), first=10)
    write_images(tmp_path, {"square": 12}, size=(30, 30), first=20)
    (tmp_path / "square" / "broken.png").write_bytes(b"no image")
    facts = image_facts(open_classification_dataset(str(tmp_path)))
    assert (facts.classes, facts.images, facts.most, facts.fewest) == (3, 21, 13, 2)
    assert facts.shorter_px == 30
    assert facts.long == pytest.approx(8 / 20)


def test_a_test_split_that_cannot_be_opened_is_left_out(tmp_path, caplog):
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (32, 32), (number, 9, 9)).save(tmp_path / split / name / f"{number}.png")
    for file in (tmp_path / "test").rglob("*.png"):
        file.unlink()
    found = look(str(tmp_path), "auto")
    assert (found.verb, len(found.train), found.test) == ("classify", 6, 0)
