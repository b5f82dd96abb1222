import json
import logging
import pickle
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from botformer.data.detection.coco_reader import coco_annotations, coco_dataset, open_coco
from botformer.data.detection.dataset import Category, DetectionDataset
from botformer.data.detection.transforms import fitting_transform, transform_objects
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
NO_BOXES = [
    ([1, 2, float("nan"), 4], "bbox is [1, 2, nan, 4], not four finite numbers (x, y, width, height)"),
    ([1, 2, float("inf"), 4], "not four finite numbers"),
    (["1", "2", "-Infinity", "4"], "not four finite numbers"),
    ([1, 2, 3], "not four finite numbers"),
    (None, "bbox is None, not four finite numbers"),
    ([1, 2, 10**400, 3], "not four finite numbers"),
    ([True, 2, 3, 4], "not four finite numbers"),
    ("1 2 3 4", "not four finite numbers"),
]
WRONG = [
    *(({"bbox": box}, what) for box, what in NO_BOXES),
    ({"category_id": 8}, "category 8 is not in the list of categories"),
    ({"category_id": 7.5}, "category_id is 7.5, not an integer"),
    ({"category_id": True}, "category_id is True, not an integer"),
    ({"category_id": [7]}, "category_id is [7], not an integer"),
    ({"image_id": 33}, "there is no image 33"),
    ({"image_id": [1]}, "image_id is [1], not that of an image"),
    ({"image_id": True}, "image_id is True, not that of an image"),
    ({"iscrowd": 2}, "iscrowd is 2, not 0 or 1"),
    ({"iscrowd": [0]}, "iscrowd is [0], not 0 or 1"),
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


NO_SHAPES = [
    ([[]], "segmentation has no polygon"),
    ([[[]]], "segmentation has no polygon"),
    ([[1, 2, 3, 4]], "segmentation has no polygon"),
    ([[1, 2], [3, 4]], "segmentation has no polygon"),
    ([1, 2, 3, 4], "segmentation has no polygon"),
    ([1, 2, 3, 4, 5, 6, 7], "segmentation has no polygon"),
    ([[1, 2, 3, 4, 5, float("nan")]], "segmentation has no polygon"),
    ([[1, 2, 3, 4, 5, float("inf")]], "segmentation has no polygon"),
    ([[1, 2, 3, 4, 5, True]], "segmentation has no polygon"),
    ([[[[[[[[1, 1, 9, 1, 9, 9]]]]]]]], "segmentation has no polygon"),
    ([None], "segmentation has no polygon"),
    ([[1.0, 1, 5, 5, 9, 9]], "it covers nothing of the image"),
    ([[50.0, 1, 60, 1, 60, 9]], "it covers nothing of the image"),
    ("poly", "segmentation is a str, neither polygons nor run lengths"),
    (True, "segmentation is a bool, neither polygons nor run lengths"),
    (compressed(MASK.T), "run lengths of size [40, 30] do not fit the image: [30, 40] was expected"),
    (uncompressed(MASK.T), "run lengths of size [40, 30] do not fit the image"),
    ({"size": None, "counts": [0, 1200]}, "run lengths of size None do not fit"),
    ({"size": [30, 40]}, "run lengths with a NoneType as counts"),
    ({"size": [30, 40], "counts": []}, "run lengths add up to 0 pixels, the image has 1200"),
    ({"size": [30, 40], "counts": ""}, "run lengths add up to 0 pixels, the image has 1200"),
    ({"size": [30, 40], "counts": [1200]}, "run lengths that cover nothing"),
    ({"size": [30, 40], "counts": [5, 7]}, "run lengths add up to 12 pixels, the image has 1200"),
    ({"size": [30, 40], "counts": [-1, 1201]}, "run lengths have a negative count"),
    ({"size": [30, 40], "counts": [0.5, 1199.5]}, "counts that are not integers"),
    ({"size": [30, 40], "counts": [2**63 - 1, 2**63 - 1, 1202]}, "run lengths add up to"),
    ({"size": [30, 40], "counts": [10**39]}, "run lengths add up to"),
    ({"size": [30, 40], "counts": "zz\x01"}, "counts of the run lengths cannot be read"),
    ({"size": [30, 40], "counts": "é"}, "counts of the run lengths cannot be read"),
    ({"size": [30, 40], "counts": compressed(MASK)["counts"][:-3]}, "run lengths"),
]


@pytest.mark.parametrize(
    ("shape", "what"), NO_SHAPES, ids=[f"{n} {what[:40]}" for n, (_, what) in enumerate(NO_SHAPES)]
)
def test_a_bad_shape_does_not_cost_a_good_box(shape, what, caplog) -> None:
    with caplog.at_level(logging.WARNING, "botformer.data"):
        source = source_of(annotation(6, 2, [1, 1, 20, 20], segmentation=shape), most=0)
    (found,) = source.image(1).annotations
    assert (found.box_xyxy, found.segmentation, found.area_px) == ((1, 1, 21, 21), None, 400)
    assert what in only_problem(source)
    assert "image 2 (2.png), annotation 6: shape left out: " in only_problem(source)
    assert (source.objects, source.objects_left_out) == (1, 0)
    assert "1 annotations of which a part is left out or replaced" in caplog.text
    target = transform_objects(source.image(1), fitting_transform((40, 30), (64, 64)), 8)
    assert target["has_mask"].tolist() == [False]


SQUARE = [[3.0, 4.0, 13.0, 4.0, 13.0, 9.0, 3.0, 9.0]]


@pytest.mark.parametrize(
    "shape",
    [
        SQUARE,
        SQUARE[0],
        [SQUARE],
        [[SQUARE]],
        [[[3, 4], [13, 4], [13, 9], [3, 9]]],
        [[3, 4], [13, 4], [13, 9], [3, 9]],
        [["3", "4.0", "13", "4", "13", "9", "3", "9"]],
    ],
)
def test_flat_and_nested_polygons_are_read_as_what_everyone_can_see(shape) -> None:
    source = source_of(annotation(6, 2, [1, 1, 20, 20], segmentation=shape), most=0)
    assert source.image(1).annotations[0].segmentation == SQUARE
    assert source.problems == ()


def test_run_lengths_in_a_list_without_a_size_or_with_numbers_as_text_are_read() -> None:
    runs = uncompressed(MASK)
    as_text = {"size": ["30", 40.0], "counts": list(map(str, runs["counts"]))}
    for shape in ([runs], {"counts": runs["counts"]}, as_text):
        source = source_of(annotation(6, 2, [1, 1, 20, 20], segmentation=shape), most=0)
        assert source.image(1).annotations[0].segmentation == runs
        assert source.problems == ()


@pytest.mark.parametrize("box", [*(box for box, _ in NO_BOXES), [], [13, 9, -10, -5], [3, 4, 0, 5], [90, 90, 5, 5]])
def test_a_bad_box_does_not_cost_a_good_shape(box) -> None:
    for shape, expected in ((SQUARE, (3, 4, 10, 5)), (compressed(MASK), tuple(coco_mask.toBbox(compressed(MASK))))):
        source = source_of(annotation(6, 2, box, segmentation=shape), most=0)
        (found,) = source.image(1).annotations
        assert found.box_xywh == expected
        assert (source.objects, source.objects_left_out) == (1, 0)
        if box not in (None, []):
            assert "box taken from the shape" in only_problem(source)


def test_a_box_in_text_an_id_too_few_and_null_and_floats_for_integers_are_read() -> None:
    record = annotation(0, 2, ["-4", "20.5", "10", "50"], iscrowd=None, category_id=7.0, image_id="2")
    del record["id"]
    source = source_of(record, record | {"iscrowd": "0", "category_id": "7", "image_id": 2.0}, most=0)
    for found in source.image(1).annotations:
        assert (found.id, found.label, found.crowd) == (None, 2, False)
        assert (found.box_xyxy, found.box_xywh) == ((0, 20.5, 6, 30), (-4, 20.5, 10, 50))
    assert source.problems == ()
    assert "id" not in coco_annotations(source.image(1), source.categories)[0]


@pytest.mark.parametrize("area", [None, 0, -3, "wide", float("nan"), True, [4]])
def test_an_area_that_is_none_is_worked_out(area) -> None:
    """Of a shape its own within the image, twice 10 x 5 with 5 x 5 in common and half of 8 x 4 beyond the border; of a
    box what of it lies in the image."""
    shape = [SQUARE[0], [8, 9, 18, 9, 18, 4, 8, 4], [36, 20, 44, 20, 44, 24, 36, 24]]
    source = source_of(
        annotation(6, 2, [3, 4, 41, 20], segmentation=shape, area=area), annotation(7, 2, [35, 20, 10, 5], area=area)
    )
    assert [found.area_px for found in source.image(1).annotations] == [75 + 16, 25]
    said = source_of(annotation(6, 2, [3, 4, 41, 20], segmentation=shape, area="55.5"))
    assert said.image(1).annotations[0].area_px == 55.5


def test_image_ids_of_any_size_and_sign_and_names_are_kept() -> None:
    ids = [2**53, 2**53 + 1, -5, 0, "scan 1", "7f3a", 10**30]
    images = [image(1, f"{place}.png") | {"id": number} for place, number in enumerate(ids)]
    source = source_of(
        *(annotation(9, number, [1, 1, place + 1, 5]) for place, number in enumerate(ids)), images=images
    )
    assert [source.image(place).id for place in range(len(ids))] == ids
    for place, number in enumerate(ids):
        (found,) = source.image(place).annotations
        assert found.box_xywh[2] == place + 1
        assert coco_annotations(source.image(place), source.categories)[0]["image_id"] == number
    assert not source.problems


def test_crowds_are_counted_and_said(caplog) -> None:
    records = [annotation(n, 1, [n, 2, 3, 4], iscrowd=int(n > 1)) for n in (1, 2, 3)]
    with caplog.at_level(logging.WARNING, "botformer.data"):
        source = source_of(*records)
    assert (source.objects, source.crowds) == (1, 2)
    assert "here: 2 of 3 annotations are crowds (iscrowd: 1): background in training" in caplog.text
    assert "set their iscrowd to 0" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "botformer.data"):
        source_of(*records[:1] * 3, *records[1:2])
    assert "1 of 4 annotations are crowds" in caplog.text
    assert {record.levelname for record in caplog.records} == {"INFO"}


SIZES = [None, 0, -1, -5.5, 10**39, 10**9, 40.5, "tall", True, [30], "missing"]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_size_that_makes_no_sense_is_read_from_the_image(size, tmp_path: Path, caplog) -> None:
    data = content([image(1), image(2)], [annotation(1, 1, [1, 1, 5, 5]), annotation(2, 2, [30, 20, 5, 5])])
    file = write(tmp_path, data)
    data["images"][1]["height"] = size
    if size == "missing":
        del data["images"][1]["height"], data["images"][1]["width"]
    file.write_text(json.dumps(data), encoding="utf-8")
    with caplog.at_level(logging.WARNING, "botformer.data"):
        source = open_coco(file, tmp_path / "train")
    assert (source.image(1).width, source.image(1).height) == (40, 30)
    assert (source.objects, source.problems) == (2, ())
    assert "1 images without a size that makes sense" in caplog.text
    assert "2.png: width and height are" in caplog.text
    (tmp_path / "train" / "2.png").unlink()
    with pytest.raises(InputError, match="1 annotations make no sense, 0 are tolerated"):
        open_coco(file, tmp_path / "train", max_bad_records=0)
    source = open_coco(file, tmp_path / "train")
    assert (len(source), source.objects, source.objects_left_out) == (1, 1, 1)
    assert "image 2 (2.png), annotation None: width and height are" in only_problem(source)
    assert "the image itself cannot be read: No such file" in only_problem(source)


def test_sizes_written_as_floats_or_text_are_numbers() -> None:
    source = source_of(images=[image(1) | {"width": 40.0, "height": "30"}])
    assert (source.image(0).width, source.image(0).height) == (40, 30)


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


@pytest.mark.parametrize("key", ["id", "file_name"])
def test_an_image_record_that_lacks_something_is_named(key: str) -> None:
    record = image(9)
    with pytest.raises(InputError, match=r"images\[1\] must have an 'id', an integer or a name"):
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
        (b'{"images": [' + b"9" * 5000 + b"]}", "holds a number that cannot be read"),
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


def test_a_byte_order_mark_and_line_ends_of_windows_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    text = "\ufeff" + json.dumps(content([image(1)], []), indent=1)
    file.write_bytes(text.replace("\n", "\r\n").encode())
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


def test_of_joined_files_with_the_same_ids_nobody_knows_whose_annotations_are_whose(tmp_path: Path) -> None:
    images = [image(1, "a.png"), image(2, "b.png"), image(3, "c.png"), image(1, "b.png"), image(2, "c.png")]
    with pytest.raises(InputError, match=r"image id 1 stands there 2 times"):
        opened(tmp_path, images, [annotation(n, n, [n, 2, 3, 4]) for n in (1, 2, 3)])


def test_of_a_file_that_was_joined_with_itself_each_object_is_one(tmp_path: Path) -> None:
    images = [image(1, "a.png"), image(2, "b.png"), image(7, "a.png"), image(1, "a.png")]
    twice = [annotation(1, 1, [1, 2, 3, 4]), annotation(2, 7, [1, 2, 3, 4]), annotation(3, 7, [1, 2, 3, 5])]
    alone = [annotation(n, 2, [1, 2, 3, 4]) for n in (4, 5)]
    source = opened(tmp_path, images, twice + alone)
    assert [[found.box_xywh[3] for found in source.image(index).annotations] for index in (0, 1)] == [[4, 5], [4, 4]]


def opened(root: Path, images: list[dict], annotations: list[dict]) -> DetectionDataset:
    return open_coco(write(root, content(images, annotations)), root / "train")


def test_an_image_under_several_ids_has_the_objects_of_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [image(1, "a.png"), image(2, "b.png"), image(3, "a.png"), image(1, "a.png")]
    source = opened(tmp_path, images, [annotation(n, n, [n, 2, 3, 4]) for n in (1, 2, 3)])
    assert [source.name(index) for index in range(len(source))] == ["a.png", "b.png"]
    assert [[found.box_xywh[0] for found in source.image(index).annotations] for index in (0, 1)] == [[1, 3], [2]]
    assert "2 images stand there more than once; each is taken once, with the annotations of all" in caplog.text


SHAPE = [[10, 8, 20, 8, 20, 18, 10, 18]]


def test_boxes_that_are_corners_are_refused_where_their_shapes_show_it(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"its boxes are corners .*1 of 1 end where their shapes do; COCO's are x, y, w"
    ):
        opened(tmp_path, [image(1)], [annotation(1, 1, [10, 8, 20, 18], segmentation=SHAPE)])
    assert opened(tmp_path, [image(1)], [annotation(1, 1, [10, 8, 10, 10], segmentation=SHAPE)]).objects == 1


def test_boxes_that_are_corners_are_refused_where_their_images_show_it(tmp_path: Path) -> None:
    corners = [annotation(n, 1, [20 + n, 16, 30 + n, 26]) for n in range(10)]
    with pytest.raises(InputError, match=r"as x, y, width, height 10 of 10 would reach beyond their image"):
        opened(tmp_path, [image(1)], corners)
    assert opened(tmp_path, [image(1)], corners[:3]).objects == 3  # close-ups may reach beyond their image
    assert opened(tmp_path, [image(1)], [annotation(n, 1, [20 + n, 16, 10, 10]) for n in range(10)]).objects == 10
    beyond = [annotation(n, 1, [30, 16, 20, 40]) for n in range(10)]  # no corners: 30 lies right of 20
    assert opened(tmp_path, [image(1)], beyond).objects == 10


def test_boxes_that_are_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its boxes are fractions of the image, such as \[0\.1, 0\.1, 0\.5, 0\.5\]"):
        opened(tmp_path, [image(1)], [annotation(1, 1, [0.1, 0.1, 0.5, 0.5])])
    assert opened(tmp_path, [image(1)], [annotation(1, 1, [0, 0, 1, 1])]).objects == 1  # a pixel
    assert opened(tmp_path, [image(1)], [annotation(1, 1, [0, 0, 0, 0], segmentation=SHAPE)]).objects == 1  # no box
