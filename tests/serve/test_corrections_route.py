"""/corrections: a zip that the readers of this package and pycocotools understand as it was meant."""

import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from botformer.data.classification.dataset import open_classification_datasets
from botformer.data.classification.label_studio_choices import read_choices
from botformer.data.detection.layouts import open_detection_dataset
from botformer.data.detection.mask_targets import crop_mask
from botformer.report.opened_data import open_data
from botformer.rle import decode
from botformer.serve import corrections_archive
from botformer.serve.corrections_archive import unique_names

from .conftest import png

SQUARE = [[10.0, 10.0], [30.0, 10.0], [30.0, 30.5], [10.0, 30.5]]
TRIANGLE = [[40.0, 5.0], [60.0, 5.0], [50.0, 25.0]]
CATEGORIES = [{"id": 3, "name": "square"}, {"id": 7, "name": "bar"}]


def flat(polygon):
    return [side for point in polygon for side in point]


def image(number=0):
    return png(np.random.default_rng(number).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def annotations(*names, objects=(), **more):
    images = [{"name": name, "width": 70, "height": 50, "objects": list(objects)} for name in names]
    return {"task": "detection", "categories": CATEGORIES, "images": images} | more


def corrections(server, content, files, layout="coco"):
    parts = [("annotations", None, json.dumps(content).encode()), *(("image", name, data) for name, data in files)]
    return server.post_form(f"/corrections?format={layout}", parts)


def unpacked(reply, folder):
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
        return sorted(archive.namelist())


OBJECTS = [
    {"category_id": 7, "polygons": [SQUARE, TRIANGLE]},
    {"category_id": 3, "polygons": [TRIANGLE]},
    {"category_id": 3, "box_xyxy": [1.5, 2.0, 21.5, 42.0]},
    {"category_id": 3, "box_xyxy": [-5.0, 40.0, 20.0, 90.0]},
]


def test_coco(server, tmp_path):
    files = [("a.png", image(1)), ("b.png", image(2)), ("c.png", image(3))]
    content = annotations("a.png", "b.png", "c.png", objects=OBJECTS)
    content["images"][2]["objects"] = []
    names = unpacked(corrections(server, content, files), tmp_path)
    assert names == ["annotations/instances_train.json", "train/a.png", "train/b.png", "train/c.png"]
    assert (tmp_path / "train/b.png").read_bytes() == files[1][1]
    coco = COCO(str(tmp_path / "annotations/instances_train.json"))
    assert coco.loadCats(coco.getCatIds()) == CATEGORIES
    assert len(coco.imgs) == 3
    found = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert [each["category_id"] for each in found] == [7, 3, 3, 3]
    assert [each["bbox"] for each in found] == [[10, 5, 50, 25.5], [40, 5, 20, 20], [1.5, 2, 20, 40], [0, 40, 20, 10]]
    assert [each["area"] for each in found] == [610, 200, 800, 200]
    assert coco.annToMask(found[1]).sum() == pytest.approx(200, abs=15)
    own = open_detection_dataset(str(tmp_path), "train")
    assert [each.segmentation is not None for each in own.image(0).annotations] == [True, True, False, False]
    assert not own.problems
    data = open_data(str(tmp_path))
    assert data.is_detection
    assert not [finding for finding in data.findings if finding.severity == "error"]
    assert data.class_names == ("square", "bar")


def test_coco_with_key_points(server, tmp_path):
    categories = [{"id": 1, "name": "person", "keypoints": ["head", "foot"], "skeleton": [[0, 1]]}]
    objects = [{"category_id": 1, "box_xyxy": [5, 5, 30, 40], "keypoints": [[10.5, 8.5, 2], [0, 0, 0]]}]
    content = annotations("a.png", objects=objects, categories=categories)
    unpacked(corrections(server, content, [("a.png", image())]), tmp_path)
    coco = COCO(str(tmp_path / "annotations/instances_train.json"))
    (found,) = coco.loadAnns(coco.getAnnIds())
    # COCO's key points name a pixel; those of the page, as its boxes, are measured from the edge.
    assert (found["keypoints"], found["num_keypoints"]) == ([10, 8, 2, 0, 0, 0], 1)
    assert coco.cats[1]["skeleton"] == [[1, 2]]
    own = open_detection_dataset(str(tmp_path), "train", keypoints=True)
    assert (own.keypoint_names, own.skeleton) == (("head", "foot"), ((0, 1),))
    assert own.image(0).annotations[0].keypoints == ((10, 8, 2), (0, 0, 0))


def test_label_studio(server, tmp_path):
    content = annotations("a.png", "b.png", objects=OBJECTS)
    reply = corrections(server, content, [("a.png", image(1)), ("b.png", image(2))], "label_studio")
    names = unpacked(reply, tmp_path)
    assert names == ["images/a.png", "images/b.png", "labeling_interface.xml", "result.json"]
    tasks = json.loads((tmp_path / "result.json").read_text())
    assert all("predictions" not in task and len(task["annotations"]) == 1 for task in tasks)
    assert not any("score" in each for task in tasks for each in task["annotations"][0]["result"])
    interface = (tmp_path / "labeling_interface.xml").read_text()
    assert all(f'<Label value="{name}"/>' in interface for name in ("square", "bar"))
    own = open_detection_dataset(str(tmp_path), "").image(0).annotations
    # Ids are the reader's own, in the order of the names: bar, square.
    assert [each.label for each in own] == [1, 2, 2, 2]
    brushed = own[0].segmentation
    exact = coco_masks.merge(coco_masks.frPyObjects([flat(SQUARE), flat(TRIANGLE)], 50, 70))
    ((overlap,),) = coco_masks.iou([brushed], [exact], [0])
    assert overlap > 0.9
    np.testing.assert_allclose(own[1].segmentation, [flat(TRIANGLE)], atol=1e-6)
    assert own[2].segmentation is None
    np.testing.assert_allclose(own[2].box_xywh, [1.5, 2, 20, 40], atol=1e-6)
    assert not [finding for finding in open_data(str(tmp_path)).findings if finding.severity == "error"]


def test_an_object_in_parts_is_filled_within_its_own_box():
    """At any place, as COCO fills it; and it takes memory for the object, not for the image."""
    generator = np.random.default_rng(0)
    for _ in range(100):
        width, height = (int(side) for side in generator.integers(3, 90, 2))
        parts = [(generator.uniform(-0.2, 1.2, (5, 2)) * [width, height]).clip(0, [width, height]) for _ in "ab"]
        polygons = [part.reshape(-1).tolist() for part in parts]
        found = corrections_archive._for_label_studio({"segmentation": polygons}, width, height)["segmentation"]
        longer = max(width, height)
        whole = crop_mask(polygons, (0.0, 0.0, float(longer), float(longer)), longer)[:height, :width]
        assert np.array_equal(decode(found), whole == 1)
    tracemalloc.start()
    far = [[59_900.0, 10, 59_950, 10, 59_950, 40], [59_960.0, 1_900, 59_990, 1_900, 59_990, 1_990]]
    found = corrections_archive._for_label_studio({"segmentation": far}, 60_000, 2_000)["segmentation"]
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert found["size"] == [2_000, 60_000]
    assert 0.9 < coco_masks.area(found) / (50 * 30 / 2 + 30 * 90 / 2) < 1.1


def classes(*labels):
    names = [f"{number}.png" for number in range(len(labels))]
    images = [{"name": name, "width": 70, "height": 50, "label": label} for name, label in zip(names, labels)]  # noqa: B905
    return {"task": "classification", "images": images}, [(name, image(int(name[0]))) for name in names]


def test_class_folders(server, tmp_path):
    content, files = classes("cat", "dog", "cat", "dog")
    names = unpacked(corrections(server, content, files, "folders"), tmp_path)
    assert names == ["cat/0.png", "cat/2.png", "dog/1.png", "dog/3.png"]
    train, validation = open_classification_datasets(str(tmp_path))
    for part in (train, validation):
        assert part.class_names == ("cat", "dog")
        for place in range(len(part)):
            assert part.class_names[part.read(place)[1]] in part.name(place).split("/")
    assert len(train) + len(validation) == 4
    assert not [finding for finding in open_data(str(tmp_path)).findings if finding.severity == "error"]


def test_classes_for_label_studio(server, tmp_path):
    content, files = classes("cat", "dog")
    names = unpacked(corrections(server, content, files, "label_studio"), tmp_path)
    assert names == ["images/0.png", "images/1.png", "labeling_interface.xml", "result.json"]
    tasks = json.loads((tmp_path / "result.json").read_text())
    assert read_choices(tasks, tmp_path / "result.json", tmp_path) == {"images/0.png": "cat", "images/1.png": "dog"}
    assert '<Choice value="dog"/>' in (tmp_path / "labeling_interface.xml").read_text()


def test_names_are_safe_and_each_stands_once(server, tmp_path):
    said = ["../../etc/pass wd.png", "a.PNG", "b/a.png", "a.png", "a.png", ".hidden", "CON.png", 'é"?.txt']
    files = [(name.replace('"', "%22"), image(number)) for number, name in enumerate(said)]
    names = unpacked(corrections(server, annotations(*said), files), tmp_path)
    assert names == sorted(
        ["annotations/instances_train.json"]
        + [f"train/{name}" for name in ("pass_wd.png", "a.PNG", "a-2.png", "a-3.png", "a-4.png", "hidden.png")]
        + ["train/image_CON.png", "train/é_.txt.png"]
    )
    from_windows = unique_names(["C:\\secret\\a.PNG", "..", ""], [".png", ".png", ".jpeg"])
    assert from_windows == ["a.PNG", "image.png", "image.jpeg"]
    # Each image is still the one that was meant.
    coco = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    for number, record in enumerate(coco["images"]):
        assert (tmp_path / "train" / record["file_name"]).read_bytes() == image(number)


def test_what_is_wrong_with_corrections(server):
    good, one = annotations("a.png"), [("a.png", image())]

    def with_object(**of_object):
        return annotations("a.png", objects=[{"category_id": 3} | of_object])

    for content, files, words in (
        (good, [], "has no file 'a.png'"),
        (good, [*one, ("b.png", image())], "do not name the file 'b.png'"),
        (good, [("a.png", b"text")], "not an image"),
        (annotations("a.png") | {"images": [{"name": "a.png", "width": 71, "height": 50}]}, one, "it has 70x50"),
        (with_object(category_id=9, box_xyxy=[0, 0, 5, 5]), one, "category 9"),
        (with_object(), one, "neither polygons nor box_xyxy"),
        (with_object(box_xyxy=[80, 0, 90, 10]), one, "covers nothing"),
        (with_object(polygons=[[[0, 0], [1, 1]]]), one, "images.0.objects.0.polygons.0"),
        (with_object(box_xyxy=[0, 0, 5, 5], keypoints=[[1, 1, 2]]), one, "1 key points, and its category 0"),
        (good | {"task": "classification"}, one, "expected folders or label_studio"),
        ([], one, "should be an object"),
    ):
        reply = corrections(server, content, files)
        assert (reply.status, words in reply.detail) == (422, True), reply.detail
    assert corrections(server, good, one, "folders").status == 422
    assert corrections(server, good, one, "yolo").status == 422
    content, files = classes("a/b")
    assert "cannot be the name of a folder" in corrections(server, content, files, "folders").detail
    assert server.post("/corrections", b"{}").status == 400
    assert server.post_form("/corrections", [("image", "a.png", image())]).status == 400
    assert Image.open(io.BytesIO(image())).size == (70, 50)
