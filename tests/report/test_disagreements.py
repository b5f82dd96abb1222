"""Labels that a network contradicts."""

import json
from io import BytesIO

import pytest
from PIL import Image

from botformer.data.classification.dataset import open_classification_datasets
from botformer.data.detection.layouts import open_detection_datasets
from botformer.report.disagreements import classifier_disagreements, detector_disagreements, wrong_images
from botformer.report.finding import ImageRef
from botformer.report.opened_data import Split
from botformer.report.thumbnails import thumbnail
from tests.data.detection.coco_files import annotation, content, image, write

from .pages import write_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = write_folders(
        tmp_path_factory.mktemp("folders"), {"train/cat": 2, "train/dog": 2, "val/cat": 4, "val/dog": 2}
    )
    return Split("validation", open_classification_datasets(str(root))[1])


def said(name, label, *top):
    return {"file_name": name, "label": label, "top5": [list(pair) for pair in top]}


def test_the_surest_contradictions_come_first_and_agreement_is_left_out(folders):
    predictions = [
        said("cat/0.png", "cat", ("cat", 0.99), ("dog", 0.01)),
        said("cat/1.png", "cat", ("dog", 0.85), ("cat", 0.15)),
        said("cat/2.png", "cat", ("dog", 0.97), ("cat", 0.03)),
        said("cat/3.png", "cat", ("dog", 0.60), ("cat", 0.40)),
        said("dog/0.png", "dog", ("cat", 0.91), ("dog", 0.02)),
        said("elsewhere.png", "dog", ("cat", 1.0)),
    ]
    assert [each.name for each in wrong_images(folders, predictions)] == [
        "cat/2.png", "dog/0.png", "cat/1.png", "cat/3.png",
    ]  # fmt: skip
    (finding,) = classifier_disagreements(folders, predictions)
    assert finding.count == 3  # 80 % or more
    assert finding.listed == ["cat/2.png: cat? dog 97%", "dog/0.png: dog? cat 91%", "cat/1.png: cat? dog 85%"]
    assert [folders.image_name(example.images[0].index) for example in finding.examples] == [
        "cat/2.png", "dog/0.png", "cat/1.png",
    ]  # fmt: skip


def test_a_network_that_agrees_finds_nothing(folders):
    assert classifier_disagreements(folders, [said("cat/0.png", "cat", ("cat", 1.0))]) == []


METRICS = {
    "skipped": {"images": {}},
    "box": {"per_class": [{"id": 0, "name": "naïve 人"}, {"id": 7, "name": "cell"}, {"id": 3, "name": "bottle"}]},
}
"""Of a network that also knows bottles, which the data lack."""


def detected(image_id, box, score, category=7):
    return {"image_id": image_id, "bbox": box, "score": score, "category_id": category}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """One split: image 1 has three objects (7: cell) and a crowd, image 2 has one, image 3 none."""
    root = tmp_path_factory.mktemp("scenes")
    objects = [
        annotation(1, 1, [2, 2, 10, 10], area=100),
        annotation(2, 1, [20, 2, 10, 10], area=100),
        annotation(3, 1, [2, 18, 6, 6], area=36),
        annotation(4, 1, [22, 16, 16, 12], area=192, iscrowd=1),
        annotation(5, 2, [5, 5, 20, 20], area=400),
    ]
    for name, folder in (("instances_train.json", "train"), ("instances_val.json", "val")):
        write(root, content([image(1), image(2), image(3)], objects), name, folder)
    return Split("validation", open_detection_datasets(str(root))[1])


def test_planted_mistakes_of_boxes_are_told_apart(scenes):
    results = [
        detected(1, [2, 2, 10, 10], 0.95),  # right
        detected(1, [21, 2, 10, 10], 0.9, category=90),  # IoU 9/11 with the second: another class
        detected(1, [23, 17, 5, 5], 0.99),  # in the crowd: counts neither way
        detected(3, [5, 5, 10, 10], 0.85),  # nothing is annotated there
        detected(3, [30, 20, 6, 6], 0.98),  # nor there
        detected(3, [1, 1, 4, 4], 0.5),  # not sure
        detected(2, [5, 5, 20, 20], 0.05),  # too unsure to cover the large object
    ]
    found = {
        finding.what.split(" ", 1)[1][:20]: finding for finding in detector_disagreements(scenes, results, METRICS)
    }
    extra, other, missed = found["objects detected wit"], found["objects whose class "], found["annotated objects th"]
    assert extra.listed == ["3.png: cell 0.98, not annotated", "3.png: cell 0.85, not annotated"]
    assert extra.examples[0].images[0].detected_xyxy == ((30, 20, 36, 26),)
    assert other.listed == ["1.png: cell? toothbrush 0.90"]
    assert other.examples[0].images[0].annotated_xyxy == ((20, 2, 30, 12),)
    assert missed.listed == ["2.png: cell, 20x20 px, not found", "1.png: cell, 6x6 px, not found"]
    assert [extra.count, other.count, missed.count] == [2, 1, 2]


def test_nothing_is_said_of_images_that_could_not_be_read(scenes):
    (missed,) = detector_disagreements(scenes, [], METRICS | {"skipped": {"images": {"1.png": "damaged"}}})
    assert missed.listed == ["2.png: cell, 20x20 px, not found"]


def test_a_detection_of_a_class_that_the_data_lack_has_its_own_name(scenes):
    results = [
        detected(2, [5, 5, 20, 20], 0.9, category=3),
        detected(3, [5, 5, 10, 10], 0.9, category=3),
    ]
    kinds = [finding.listed for finding in detector_disagreements(scenes, results, METRICS)]
    assert ["3.png: bottle 0.90, not annotated"] in kinds
    assert ["2.png: cell? bottle 0.90"] in kinds


def test_a_picture_around_a_box_beside_the_file_shows_its_edge(scenes):
    ref = ImageRef("validation", 0, annotated_xyxy=((1700, 1650, 1800, 1800),))  # the file has 40x30 pixels
    jpeg = thumbnail(scenes, ref, around=True)
    with Image.open(BytesIO(jpeg)) as shown:
        assert max(shown.size) > 0


def test_a_perfect_detector_contradicts_nothing(scenes):
    results = [
        detected(record.id, list(each.box_xywh), 0.99)
        for record in map(scenes.dataset.image, range(3))
        for each in record.annotations
    ]
    assert detector_disagreements(scenes, json.loads(json.dumps(results)), METRICS) == []
