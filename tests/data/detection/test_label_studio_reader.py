import base64
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botformer import rle
from botformer.data.detection.brush_rle import encode_brush
from botformer.data.detection.label_studio_export import is_label_studio
from botformer.data.detection.label_studio_reader import open_label_studio
from botformer.data.detection.layouts import format_of, open_detection_datasets
from botformer.errors import InputError
from tests.data.detection.label_studio.exports import CAT, HEIGHT, WIDTH, export_min, region, task
from tests.data.detection.layout_examples import BOX_XYXY


def opened(root: Path, *tasks, images=("1.jpg",), max_bad_records=0):
    for name in images:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / name)
    assert is_label_studio(list(tasks))
    return open_label_studio(list(tasks), root / "export.json", root, max_bad_records)


def only(dataset):
    (found,) = dataset.image(0).annotations
    return found


def test_a_rectangle_is_a_box_in_per_cent(tmp_path):
    found = only(opened(tmp_path, task("1.jpg", region())))
    assert found.box_xyxy == pytest.approx(BOX_XYXY)
    assert found.segmentation is None


@pytest.mark.parametrize("angle", [0, 30, 90, -45, 180, 300])
def test_a_rectangle_is_turned_around_its_upper_left_corner(tmp_path, angle):
    value = {"x": 50, "y": 50, "width": 25, "height": 12.5, "rotation": angle}
    found = only(opened(tmp_path, task("1.jpg", region(value=value))))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = [complex(32, 24) + complex(cos, sin) * complex(x, y) for x, y in [(0, 0), (16, 0), (16, 6), (0, 6)]]
    xs, ys = [each.real for each in corners], [each.imag for each in corners]
    assert found.box_xyxy == pytest.approx((min(xs), min(ys), max(xs), max(ys)))
    if angle:
        assert np.reshape(found.segmentation[0], (4, 2)) == pytest.approx(np.stack([xs, ys], 1))
        assert found.area_px == pytest.approx(96, rel=0.1)


def test_polygons_and_ellipses_are_shapes(tmp_path):
    triangle = {"points": [[25, 25], [75, 25], [50, 75]], "closed": True}
    round_one = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 12.5, "rotation": 90}
    dataset = opened(
        tmp_path,
        task("1.jpg", region("polygonlabels", triangle), region("ellipselabels", round_one)),
    )
    polygon, ellipse = dataset.image(0).annotations
    assert polygon.segmentation == [[16, 12, 48, 12, 32, 36]]
    assert ellipse.box_xyxy == pytest.approx((26, 8, 38, 40))  # turned: 16 px up and down, 6 px left and right
    assert ellipse.area_px == pytest.approx(math.pi * 16 * 6, rel=0.01)


def test_a_brush_stroke_is_a_mask(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:20, 5:9] = mask[30:33, 40:44] = True
    value = {"format": "rle", "rle": encode_brush(mask)}
    found = only(opened(tmp_path, task("1.jpg", region("brushlabels", value))))
    assert np.array_equal(rle.decode(found.segmentation), mask)
    assert found.box_xyxy == (5, 10, 44, 33)


def test_geometry_and_label_may_be_two_results_with_one_id(tmp_path):
    shape = region("rectangle", CAT, id="a")
    del shape["value"]["rectangle"]
    label = region("labels", CAT | {"labels": ["cat"]}, id="a")
    assert only(opened(tmp_path, task("1.jpg", shape, label))).box_xyxy == pytest.approx(BOX_XYXY)


def test_the_short_export_says_the_same(tmp_path):
    (record,) = json.loads(export_min(["/data/upload/1/0a1b2c3d-1.jpg"]))
    assert only(opened(tmp_path, record)).box_xyxy == pytest.approx(BOX_XYXY)


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ("/data/upload/3/0a1b2c3d-my_photo_1.jpg", "0a1b2c3d-my_photo_1.jpg"),
        ("/data/upload/3/0a1b2c3d-my_photo_1.jpg", "images/0a1b2c3d-my_photo_1.jpg"),
        ("/data/upload/x.jpg", "images/x.jpg"),
        ("/data/upload/3/0a1b2c3d-my_photo_1.jpg", "photos/my photo 1.jpg"),
        ("/data/upload/3/0a1b2c3d-Grüße.jpg", "Grüße.jpg"),
        ("/data/local-files/?d=set/photos/my%20photo%201.jpg", "photos/my photo 1.jpg"),
        ("s3://bucket/set/photos/x.jpg", "photos/x.jpg"),
        ("https://example.org/photos/x%201.jpg", "photos/x 1.jpg"),
        ("/tasks/7/presign/?fileuri=" + base64.b64encode(b"s3://bucket/photos/x.jpg").decode(), "photos/x.jpg"),
        ("../photos/x.jpg", "photos/x.jpg"),
    ],
)
def test_images_are_found_by_what_their_addresses_end_in(tmp_path, said, there):
    dataset = opened(tmp_path, task(said, region()), images=(there, "other.jpg"))
    assert dataset.name(0) == there


def test_of_several_annotations_the_ground_truth_counts_and_else_the_latest(tmp_path, caplog):
    def annotation(number, day, label, **more):
        return {"id": number, "updated_at": f"2026-01-{day:02}", "result": [region(label=label)]} | more

    cancelled = annotation(4, 9, "cancelled", was_cancelled=True)
    first = task("1.jpg") | {"annotations": [annotation(3, 2, "latest"), annotation(9, 1, "first"), cancelled]}
    second = task("2.jpg", number=2) | {
        "annotations": [annotation(5, 1, "truth", ground_truth=True), annotation(6, 8, "later")]
    }
    with caplog.at_level(logging.WARNING, "botformer.data"):
        dataset = opened(tmp_path, first, second, images=("1.jpg", "2.jpg"))
    assert [category.name for category in dataset.categories] == ["latest", "truth"]
    assert "2 tasks have several annotations" in caplog.text


def test_skipped_and_open_tasks_are_left_out_and_empty_ones_stay(tmp_path, caplog):
    skipped = task("2.jpg", region(), number=2)
    skipped["annotations"][0]["was_cancelled"] = True
    waiting = task("3.jpg", number=3) | {"annotations": []}
    empty = task("4.jpg", number=4)
    with caplog.at_level(logging.WARNING, "botformer.data"):
        dataset = opened(
            tmp_path, task("1.jpg", region()), skipped, waiting, empty, images=[f"{n}.jpg" for n in range(1, 5)]
        )
    assert [dataset.name(index) for index in range(len(dataset))] == ["1.jpg", "4.jpg"]
    assert "1 that were skipped, 1 that nobody has annotated" in caplog.text


def test_predictions_are_nobodys_annotations(tmp_path):
    record = task("1.jpg", region()) | {"predictions": [{"result": [region(), region()]}]}
    assert len(opened(tmp_path, record).image(0).annotations) == 1


def test_what_is_no_object_is_counted(tmp_path, caplog):
    point = region("keypointlabels", {"x": 10, "y": 10, "width": 0.5})
    choice = region("choices", {"choices": ["good"]})
    with caplog.at_level(logging.WARNING, "botformer.data"):
        opened(tmp_path, task("1.jpg", region(), point, choice))
    assert "1 keypointlabels, 1 choices" in caplog.text


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (region("polygonlabels", {"points": [[1, 2], [3, 4]]}), "a polygon of 2 points"),
        (region("polygonlabels", {"points": [["one", 2], [3, 4], [5, 6]]}), "not a finite number"),
        (region(value=CAT | {"width": None}), "not a finite number"),
        (region("brushlabels", {"rle": [1, 2, 3]}), "cut short"),
        (region("brushlabels", {"rle": []}, original_width=10), "on an image of 10x48 pixels, this one has 64x48"),
        (region("brushlabels", {"rle": encode_brush(np.zeros((HEIGHT, WIDTH), bool))}), "without a pixel"),
        (region(image_rotation=90), "turned by 90 degrees in the editor"),
        (region("ellipselabels", {"radiusX": 3}), "without its numbers"),
    ],
)
def test_a_region_that_makes_no_sense_is_a_problem(tmp_path, bad, words):
    dataset = opened(tmp_path, task("1.jpg", region(), bad), max_bad_records=1)
    (problem,) = dataset.problems
    assert words in problem.reason
    assert len(dataset.image(0).annotations) == 1


def test_what_cannot_be_an_export_of_images(tmp_path):
    with pytest.raises(InputError, match="has an image and an annotation"):
        opened(tmp_path, {"id": 1, "data": {"text": "hello"}, "annotations": [{"result": []}]})
    with pytest.raises(InputError, match="copy the images there"):
        opened(tmp_path, task("9.jpg", region()))
    with pytest.raises(InputError, match="has a labelled rectangle"):
        opened(tmp_path, task("1.jpg"))
    assert not is_label_studio([])
    assert not is_label_studio([{"image_id": 1, "score": 0.5}])
    assert not is_label_studio({"images": []})


def test_two_files_are_two_splits(tmp_path):
    for split, name in (("train", "1.jpg"), ("val", "2.jpg")):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / name)
        (tmp_path / f"{split}.json").write_text(json.dumps([task(f"/data/upload/1/{name}", region())]))
    train, validation = open_detection_datasets(str(tmp_path))
    assert (train.name(0), validation.name(0)) == ("images/1.jpg", "images/2.jpg")
    assert format_of(str(tmp_path)) == "Label Studio"


def test_a_region_without_a_label_is_left_out_and_said(tmp_path, caplog):
    bare = region()
    bare["value"].pop("rectanglelabels")
    dataset = opened(tmp_path, task("1.jpg", region(), bare, bare), max_bad_records=0)
    assert (dataset.objects, dataset.problems) == (1, ())
    assert "regions left out that are no objects: 2 rectangle without a label" in caplog.text
