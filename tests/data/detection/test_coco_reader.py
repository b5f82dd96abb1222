import json
import logging
import pickle
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from botformer.data.detection.coco_reader import coco_annotations, coco_dataset, open_coco
from botformer.data.detection.dataset import Category, DetectionDataset
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, compressed, content, disc, image, uncompressed, write

HERE = Path()


def source_of(*annotations: Any, images: list[dict] | None = None, most: int = 20) -> DetectionDataset:
    """Of images 1 and 2, 40x30 pixels."""
    return coco_dataset(content(images or [image(1), image(2)], list(annotations)), "here", HERE, most)


def only_problem(source: DetectionDataset) -> str:
    (problem,) = source.problems
    return str(problem)


# What is in the world


def test_labels_follow_category_ids_whatever_their_gaps_and_names_and_ids_are_kept() -> None:
    source = source_of(*(annotation(n, 1, [1, 2, 3, 4], category_id=c) for n, c in ((1, 90), (2, 0), (3, 7))))
    assert source.categories == (Category(0, "naïve 人"), Category(7, "cell"), Category(90, "toothbrush"))
    assert [found.label for found in source.image(0).annotations] == [3, 1, 2]
    records = coco_annotations(source.image(0), source.categories)
    assert [record["category_id"] for record in records] == [90, 0, 7]


def test_polygons_both_run_lengths_crowds_and_bare_boxes_in_one_file(tmp_path: Path) -> None:
    mask = disc(30, 40, 20, 15, 8)
    polygon = [[12.0, 7.0, 28.0, 7.0, 28.0, 23.0, 12.0, 23.0]]
    shapes = [polygon, uncompressed(mask), compressed(mask), None, []]
    annotations = [annotation(n, 4, [12, 7, 16, 16], segmentation=shape) for n, shape in enumerate(shapes, 10)]
    annotations += [annotation(20, 4, [0, 0, 9, 9], iscrowd=1, segmentation=uncompressed(mask), area=11.5)]
    del annotations[3]["segmentation"]
    path = write(tmp_path, content([image(4), image(5, "étage/人.png", stain="grey")], annotations))
    source = open_coco(path, tmp_path / "train")
    assert (len(source), source.objects, source.problems) == (2, 5, ())
    assert [source.name(index) for index in range(2)] == ["4.png", "étage/人.png"]
    full, empty = source.image(0), source.image(1)
    assert [a.segmentation for a in full.annotations] == [*shapes[:3], None, None, uncompressed(mask)]
    assert [a.crowd for a in full.annotations] == [False] * 5 + [True]
    assert [a.area_px for a in full.annotations] == [256, mask.sum(), mask.sum(), 256, 256, 11.5]
    assert (empty.annotations, empty.more) == ((), {"stain": "grey"})
    records = coco_annotations(full, source.categories)
    for record, original in zip(records, annotations, strict=True):
        assert {key: record[key] for key in original if original[key]} == {k: v for k, v in original.items() if v}


def test_a_source_goes_to_other_processes_whole() -> None:
    source = source_of(annotation(1, 2, [1, 2, 3, 4]))
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.image(index) for index in range(2)] == [source.image(index) for index in range(2)]


def test_order_is_by_file_name_whatever_the_file_says() -> None:
    images = [image(1, "b.png"), image(2, "a.png"), image(3, "c.png")]
    source = source_of(annotation(1, 3, [0, 0, 5, 5]), images=images)
    assert [source.image(index).id for index in range(3)] == [2, 1, 3]
    assert [len(source.image(index).annotations) for index in range(3)] == [0, 0, 1]


def test_boxes_are_cut_to_the_image_and_kept_as_they_were_beside() -> None:
    (found,) = source_of(annotation(1, 1, [-4, 20, 10, 50])).image(0).annotations
    assert found.box_xyxy == (0, 20, 6, 30)
    assert found.box_xywh == (-4, 20, 10, 50)


def test_a_thousand_objects_in_one_image() -> None:
    source = source_of(*(annotation(n, 1, [n % 30, n % 20, 3, 4]) for n in range(1000)))
    assert source.objects == len(source.image(0).annotations) == 1000


# What is dropped, and told


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ([40, 3, 5, 5], "lies outside the image of 40x30 pixels"),
        ([-9, 3, 9, 5], "lies outside"),
        ([3, 31.5, 5, 5], "lies outside"),
        ([3, 4, 0, 5], "has no area"),
        ([3, 4, 5, -2], "has no area"),
    ],
)
def test_boxes_of_no_area_or_outside_are_dropped_and_reported_by_ids(box, what, caplog) -> None:
    with caplog.at_level(logging.WARNING, "botformer.data"):
        source = source_of(annotation(6, 2, box), annotation(7, 2, [1, 1, 5, 5]), most=0)
    assert [found.id for found in source.image(1).annotations] == [7]
    assert only_problem(source).startswith(f"image 2 (2.png), annotation 6: box {list(map(float, box))} {what}")
    assert "1 annotations dropped that have no area inside their image" in caplog.text
    assert "image 2 (2.png), annotation 6" in caplog.text


MASK = disc(30, 40, 20, 15, 8)
WRONG = [
    ({"bbox": [1, 2, float("nan"), 4]}, "bbox is [1, 2, nan, 4], not four finite numbers (x, y, width, height)"),
    ({"bbox": [1, 2, float("inf"), 4]}, "not four finite numbers"),
    ({"bbox": [1, 2, 3]}, "not four finite numbers"),
    ({"bbox": None}, "not four finite numbers"),
    ({"bbox": [1, 2, 10**400, 3]}, "not four finite numbers"),
    ({"category_id": 8}, "category 8 is not in the list of categories"),
    ({"category_id": "7"}, "category_id is '7', not an integer"),
    ({"image_id": 33}, "there is no image 33"),
    ({"image_id": [1]}, "image_id is [1], not an integer"),
    ({"id": None}, "id is None, not an integer"),
    ({"iscrowd": 2}, "iscrowd is 2, not 0 or 1"),
    ({"segmentation": [[1, 2, 3, 4]]}, "segmentation has no polygon"),
    ({"segmentation": [1, 2, 3, 4, 5, 6]}, "segmentation has no polygon"),
    ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "segmentation has no polygon"),
    ({"segmentation": "poly"}, "segmentation is a str, neither polygons nor run lengths"),
    (
        {"segmentation": compressed(MASK.T)},
        "run lengths of size [40, 30] do not fit the image: [30, 40] was expected",
    ),
    ({"segmentation": uncompressed(MASK.T)}, "run lengths of size [40, 30] do not fit the image"),
    ({"segmentation": {"size": [30, 40]}}, "run lengths with a NoneType as counts"),
    ({"segmentation": {"size": [30, 40], "counts": [5, 7]}}, "run lengths add up to 12 pixels, the image has 1200"),
    ({"segmentation": {"size": [30, 40], "counts": [-1, 1201]}}, "run lengths have a negative count"),
    ({"segmentation": {"size": [30, 40], "counts": "zz\x01"}}, "counts of the run lengths cannot be read"),
    ({"segmentation": {"size": [30, 40], "counts": "é"}}, "counts of the run lengths cannot be read"),
    ({"segmentation": {"size": [30, 40], "counts": compressed(MASK)["counts"][:-3]}}, "run lengths"),
]


@pytest.mark.parametrize(("wrong", "what"), WRONG, ids=[what[:40] for _, what in WRONG])
def test_a_bad_record_is_skipped_and_named_and_one_too_many_stops(wrong, what, caplog) -> None:
    records = [annotation(6, 2, [1, 1, 20, 20]) | wrong, annotation(7, 2, [1, 1, 5, 5])]
    with caplog.at_level(logging.WARNING, "botformer.data"):
        source = source_of(*records, most=1)
    assert what in only_problem(source)
    assert "1 annotations skipped that make no sense" in caplog.text
    assert [found.id for found in source.image(1).annotations] == [7]
    ids = {"image_id": 2, "id": 6} | wrong
    assert f"image {ids['image_id']}" in only_problem(source)
    assert f"annotation {ids['id']}: " in only_problem(source)
    with pytest.raises(InputError, match="1 annotations make no sense, 0 are tolerated") as caught:
        source_of(*records, most=0)
    assert what in str(caught.value)


def test_records_that_are_no_objects_are_bad_records() -> None:
    assert len(source_of(None, [], "x").problems) == 3


def test_a_polygon_too_few_of_several_is_left_out_and_told() -> None:
    good = [1.0, 1, 9, 1, 9, 9]
    source = source_of(annotation(6, 2, [1, 1, 8, 8], segmentation=[[1, 2, 3, 4], good]))
    assert source.image(1).annotations[0].segmentation == [good]
    assert "annotation 6: 1 of 2 polygons left out" in only_problem(source)


# What stops


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_a_missing_key_is_named(key: str) -> None:
    data = content([image(1)], [])
    with pytest.raises(InputError, match=rf"here has a str as '{key}'"):
        coco_dataset(data | {key: "x"}, "here", HERE)
    del data[key]
    with pytest.raises(InputError, match=rf"here has no '{key}'; .* lists 'images', 'annotations' and 'categories'"):
        coco_dataset(data, "here", HERE)


@pytest.mark.parametrize("key", ["id", "file_name", "width", "height"])
def test_an_image_record_that_lacks_something_is_named(key: str) -> None:
    record = image(9)
    with pytest.raises(InputError, match=r"images\[1\] must have an integer 'id'"):
        source_of(images=[image(1), record | {key: -1.5}])
    del record[key]
    with pytest.raises(InputError, match=rf"images\[1\] lacks '{key}'"):
        source_of(images=[image(1), record])


def test_ids_that_repeat_and_categories_without_names_stop() -> None:
    with pytest.raises(InputError, match="image id 3 stands there 2 times"):
        source_of(images=[image(3), image(3)])
    for categories, what in (
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "category id 1 stands there 2 times"),
        ([{"id": 1}], r"categories\[0\] must have an integer 'id' and a 'name'"),
    ):
        with pytest.raises(InputError, match=what):
            coco_dataset(content([image(1)], [], categories), "here", HERE)
    with pytest.raises(InputError, match="'categories' is empty"):
        coco_dataset(content([], []) | {"categories": []}, "here", HERE)


def test_what_is_not_json_is_refused_with_the_place(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for text, what in (
        (b"images: []\n", r"a.json is not JSON: Expecting value: line 1"),
        (b'{"images": [1, 2,, 3], "annotations": [], "categories": []}', "is not JSON: .*char 17"),
        (b"\x89PNG\r\n", "is not JSON: byte 0 is not UTF-8"),
        (b"[]", "holds a list, not an object with 'images'"),
        (b"[" * 100_000, "nested too deep|ends in the middle"),
    ):
        file.write_bytes(text)
        with pytest.raises(InputError, match=what):
            open_coco(file, tmp_path)
    with pytest.raises(InputError, match=r"b.json does not exist"):
        open_coco(tmp_path / "b.json", tmp_path)
    with pytest.raises(InputError, match="nowhere, the folder of the images of .*a.json, does not exist"):
        open_coco(file, tmp_path / "nowhere")


def test_a_truncated_file_is_called_that_wherever_it_ends(tmp_path: Path) -> None:
    whole = json.dumps(content([image(1)], [annotation(1, 1, [1, 2, 3, 4], segmentation=None)]))
    file = tmp_path / "a.json"
    for end in range(1, len(whole)):
        file.write_text(whole[:end], encoding="utf-8")
        with pytest.raises(InputError, match="ends in the middle; copy or download it again"):
            open_coco(file, tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("\ufeff" + json.dumps(content([image(1)], [])), encoding="utf-8")
    assert len(open_coco(file, tmp_path)) == 1


# Real files


@pytest.mark.parametrize(
    ("archive", "file", "images", "objects", "crowds", "kinds"),
    [
        ("coco_sample.zip", "instances_train2017.json", 128, 929, 10, 80),
        ("coco_sample.zip", "instances_val2017.json", 100, 707, 5, 80),
        ("dsb2018.zip", "instances_val.json", 143, 6050, 0, 1),
    ],
)
def test_real_files_are_read_without_a_problem(real_data, tmp_path, archive, file, images, objects, crowds, kinds):
    if not (real_data / archive).is_file():
        pytest.skip(f"{real_data / archive} is not there")
    with ZipFile(real_data / archive) as packed:
        packed.extract(f"annotations/{file}", tmp_path)
    source = open_coco(tmp_path / "annotations" / file, tmp_path)
    assert (len(source), source.objects, source.problems, len(source.categories)) == (images, objects, (), kinds)
    records = [source.image(index) for index in range(len(source))]
    assert sum(found.crowd for record in records for found in record.annotations) == crowds
    original = {
        record["id"]: record for record in json.loads((tmp_path / "annotations" / file).read_text())["annotations"]
    }
    for record in records:
        for again in coco_annotations(record, source.categories):
            assert again == {key: original[again["id"]][key] for key in again}
    assert np.diff(source.starts).min() > 0
