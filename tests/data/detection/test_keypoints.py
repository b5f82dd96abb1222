"""Key points from COCO's file onto the canvas: what is read, what is left out, and where they land."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.coco_reader import coco_annotations, coco_dataset
from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.detection.keypoints import KeypointLayout, flip_indices
from botformer.data.detection.layouts import has_keypoints, open_detection_dataset, open_detection_datasets
from botformer.data.detection.transforms import CanvasTransform, DetectionImages, fitting_transform, transform_objects
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, content, image, write

NAMES = ["nose", "left_ear", "right_ear"]
PERSON = {"id": 7, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}
BOX = [2.0, 3, 20, 15]
GOOD = [5, 6, 2, 8.5, 9, 1, 0, 0, 0]


def opened(*annotations, categories=(PERSON,), keypoints=True):
    data = content([image(1, width=40, height=30)], list(annotations), list(categories))
    return coco_dataset(data, "here", Path(), keypoints=keypoints)


def person(number=1, **more):
    return annotation(number, 1, BOX, **more)


def test_points_are_read_and_given_back():
    source = opened(person(keypoints=GOOD, num_keypoints=2), person(2), person(3, keypoints=[0] * 9, iscrowd=1))
    assert source.keypoint_names == tuple(NAMES)
    assert source.skeleton == ((0, 1), (0, 2))
    assert not source.problems
    first, bare, crowd = source.image(0).annotations
    assert first.keypoints == ((5, 6, 2), (8.5, 9, 1), (0, 0, 0))
    assert (first.num_keypoints, bare.num_keypoints, crowd.num_keypoints) == (2, 0, 0)
    assert bare.keypoints == crowd.keypoints == ((0, 0, 0),) * 3
    records = coco_annotations(source.image(0), source.categories)
    assert records[0]["keypoints"] == GOOD
    assert [record["num_keypoints"] for record in records] == [2, 0, 0]
    assert has_keypoints(source)
    assert not has_keypoints(opened(person(keypoints=[0] * 9)))


def test_num_keypoints_is_counted_where_it_is_missing_and_believed_where_it_is_not():
    counted, believed = opened(person(keypoints=GOOD), person(2, keypoints=GOOD, num_keypoints=0)).image(0).annotations
    assert (counted.num_keypoints, believed.num_keypoints) == (2, 0)


def test_other_detectors_do_not_read_them():
    source = opened(person(keypoints=GOOD), keypoints=False)
    assert source.keypoint_names == ()
    assert source.image(0).annotations[0].keypoints is None
    assert "keypoints" not in coco_annotations(source.image(0), source.categories)[0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (GOOD[:8], "8 numbers, not x, y, v of 3 points"),
        ([*GOOD, 1, 1, 1], "12 numbers"),
        ({"nose": [1, 2]}, "a dict"),
        ([float("nan"), *GOOD[1:]], "not finite"),
        ([5, 6, "2", *GOOD[3:]], "not finite numbers"),
        ([5, 6, 3, *GOOD[3:]], "v of point 1 is 3, not 0, 1 or 2"),
        ([*GOOD[:5], -1, *GOOD[6:]], "v of point 2 is -1"),
    ],
)
def test_bad_points_are_named_and_the_box_stays(bad, words):
    source = opened(person(keypoints=GOOD), person(5, keypoints=bad, num_keypoints=3))
    (problem,) = source.problems
    assert problem.annotation_id == 5
    assert words in problem.reason
    good, kept = source.image(0).annotations
    assert kept.box_xywh == tuple(BOX)
    assert kept.keypoints == ((0, 0, 0),) * 3
    assert kept.num_keypoints == 0
    assert good.num_keypoints == 2


def test_points_beside_the_image_stay_as_they_are_in_the_file():
    (found,) = opened(person(keypoints=[-3, 6, 2, 99, 9, 1, 0, 0, 0])).image(0).annotations
    assert found.keypoints[:2] == ((-3, 6, 2), (99, 9, 1))


def test_categories_must_have_the_same_points():
    dog = {"id": 9, "name": "dog", "keypoints": [*NAMES, "tail"]}
    for other in (dog, {"id": 9, "name": "dog"}, dog | {"keypoints": NAMES[::-1]}):
        with pytest.raises(InputError, match=r"same key points for every category, but 'person' has nose.*'dog' has"):
            opened(person(), categories=(PERSON, other))
        assert opened(person(), categories=(PERSON, other), keypoints=False).objects == 1
    assert opened(person(), categories=(PERSON, dog | {"keypoints": NAMES})).keypoint_names == tuple(NAMES)
    assert opened(person(), categories=({"id": 7, "name": "cell"},)).keypoint_names == ()
    with pytest.raises(InputError, match="list of different names"):
        opened(person(), categories=(PERSON | {"keypoints": ["nose", "nose", "ear"]},))


def test_a_skeleton_that_leads_nowhere_is_left_out(caplog):
    source = opened(person(), categories=(PERSON | {"skeleton": [[1, 2], [0, 1], [3, 4], "x"]},))
    assert source.skeleton == ((0, 1),)
    assert "3 of 4 pairs of the skeleton left out" in caplog.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("left_eye", "right_eye"), ("eye left", "eye right"), ("LeftEye", "RightEye"), ("leftEye", "rightEye"),
        ("EyeLeft", "EyeRight"), ("l_knee", "r_knee"), ("knee.L", "knee.R"), ("L knee", "R knee"), ("LKnee", "RKnee"),
        ("back-left-paw", "back-right-paw"), ("frontLeftPaw", "frontRightPaw"), ("wingL1", "wingR1"),
        ("lefteye", "righteye"), ("frontleftpaw", "frontrightpaw"), ("eyeleft", "eyeright"),
        ("LEFTEYE", "RIGHTEYE"), ("kneeLeft2", "kneeRight2"),
    ],
)  # fmt: skip
def test_a_flip_exchanges_left_and_right(one, other):
    assert flip_indices(["nose", one, "tail", other]) == [0, 3, 2, 1]


def test_points_without_a_partner_stay_and_pairs_can_be_given():
    assert flip_indices(["left_eye", "bright", "leftover", "nose", "l", "cleft"]) == list(range(6))
    assert flip_indices(["port", "mast", "starboard"], [("port", "starboard")]) == [2, 1, 0]
    names = ["left_eye", "right_eye", "port", "starboard"]
    assert flip_indices(names, [("port", "starboard")]) == [0, 1, 3, 2]  # what is given is all, and the log says so
    with pytest.raises(InputError, match=r"keypoint_pairs has \(port, star\).*port, mast"):
        flip_indices(["port", "mast"], [("port", "star")])


WIDTH, HEIGHT, SIZE = 60, 44, 96
TRANSFORMS = [
    CanvasTransform((WIDTH, HEIGHT), rot90, hflip, scaled if rot90 % 2 == 0 else scaled[::-1], corner, (SIZE, SIZE))
    for rot90 in range(4)
    for hflip in (False, True)
    for scaled, corner in (((60, 44), (0, 0)), ((90, 66), (0, 0)), ((180, 132), (0, 0)), ((180, 132), (31, 20)))
]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_points_go_where_the_pixels_go(transform):
    """A dot drawn and transformed lies where the transformed point is, to half a pixel."""
    dots = np.array([[10, 8], [52, 30], [31, 21], [5, 39]])
    names = ["left_a", "right_a", "b", "c"]
    values = [value for x, y in dots.tolist() for value in (x, y, 2)]
    data = content(
        [image(1, width=WIDTH, height=HEIGHT)],
        [annotation(1, 1, [0, 0, WIDTH, HEIGHT], keypoints=values)],
        [{"id": 7, "name": "thing", "keypoints": names}],
    )
    record = coco_dataset(data, "here", Path(), keypoints=True).image(0)
    placed = transform_objects(record, transform, None, flip_indices(names))["keypoints"][0]
    height, width = transform.extent
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    order = [1, 0, 2, 3] if transform.hflip else [0, 1, 2, 3]  # the left one is the right one in a mirror
    seen = 0
    for (x, y, v), dot in zip(placed.tolist(), dots[order], strict=True):
        inside = transform.points(dot[None] + 0.5)[0]
        on_canvas = (inside >= 0).all() and inside[0] <= width and inside[1] <= height
        assert v == (2 if on_canvas else 0)
        if not on_canvas:
            assert (x, y) == (0, 0)
            continue
        margin = 3 * max(transform.scale)
        if not (margin <= x <= width - margin and margin <= y <= height - margin):
            continue  # cut by the border: its middle is not what is seen of it
        pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        pixels[dot[1] - 1 : dot[1] + 2, dot[0] - 1 : dot[0] + 2] = 255
        weight = transform.draw(Image.fromarray(pixels))[0].double().numpy()
        assert abs((weight * columns).sum() / weight.sum() - x) < 0.5
        assert abs((weight * rows).sum() / weight.sum() - y) < 0.5
        seen += 1
    assert seen or transform.corner_px != (0, 0)


def test_what_is_not_labelled_is_not_visible_and_crowds_are_gone():
    record = opened(person(keypoints=GOOD), person(2), person(3, iscrowd=1, keypoints=GOOD)).image(0)
    placed = transform_objects(record, fitting_transform((40, 30), (80, 80)), 16, [0, 1, 2])
    assert placed["keypoints"].tolist() == [[[11, 13, 2], [18, 19, 1], [0, 0, 0]], [[0, 0, 0]] * 3]
    assert placed["keypoints"].dtype == np.float32
    assert len(placed["boxes"]) == 2


@pytest.fixture
def folder(tmp_path):
    records = [person(n, image_id=n, keypoints=GOOD) for n in (1, 2, 3)]
    for split, count in (("train", 3), ("val", 1)):
        data = content([image(n, width=40, height=30) for n in range(1, count + 1)], records[:count], [PERSON])
        write(tmp_path, data, f"person_keypoints_{split}2017.json", f"{split}2017")
    return tmp_path


def test_each_sort_of_detector_prefers_its_own_files(folder):
    train, validation = open_detection_datasets(str(folder), keypoints=True)
    assert (train.objects, validation.objects) == (3, 1)
    assert "person_keypoints_train2017" in train.where
    assert "person_keypoints_train2017" in open_detection_dataset(str(folder), "train").where  # there is no other
    cell = [{"id": 7, "name": "cell"}]
    write(folder, content([image(1)], [person()], cell), "instances_train2017.json", "train2017")
    assert "instances_train2017" in open_detection_dataset(str(folder), "train").where
    assert "person_keypoints_train2017" in open_detection_dataset(str(folder), "train", keypoints=True).where
    (folder / "annotations" / "person_keypoints_train2017.json").unlink()
    bare = open_detection_dataset(str(folder), "train", keypoints=True)
    assert "instances_train2017" in bare.where
    assert bare.keypoint_names == ()


def test_splits_with_other_points_are_refused(folder):
    file = folder / "annotations" / "person_keypoints_val2017.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | {"categories": [PERSON | {"keypoints": NAMES[::-1]}]}))
    with pytest.raises(InputError, match="same key points in the same order"):
        open_detection_datasets(str(folder), keypoints=True)


def test_batches_have_points_and_no_masks(folder):
    train, validation = open_detection_datasets(str(folder), keypoints=True)
    images = DetectionImages(size=80, scale_jitter=(1.0, 1.0), hflip=False)
    batch = next(iter(detection_training_batches(train, images, 3, seed=0, workers=0).starting_at(0)))
    for target in batch["targets"]:
        assert target["keypoints"].dtype == torch.float32
        assert target["keypoints"].tolist() == [[[11, 13, 2], [18, 19, 1], [0, 0, 0]]]
        assert "mask_crops" not in target
    (batch,) = detection_evaluation_batches(validation, images, 3, workers=0)
    (record,) = json.loads(batch["targets"][0]["ground_truth"])
    assert record["keypoints"] == GOOD
    plain = detection_training_batches(open_detection_dataset(str(folder), "train"), images, 3, seed=0, workers=0)
    assert "keypoints" not in next(iter(plain.starting_at(0)))["targets"][0]
    with pytest.raises(InputError, match="keypoint_pairs"):
        detection_training_batches(train, DetectionImages(keypoint_pairs=(("nose", "tail"),)), 3, seed=0, workers=0)


def test_flipped_images_have_the_other_ear(folder):
    train, _ = open_detection_datasets(str(folder), keypoints=True)
    images = DetectionImages(size=40, scale_jitter=(1.0, 1.0))
    seen = set()
    batches = detection_training_batches(train, images, 3, seed=0, workers=0).starting_at(0)
    for batch in islice(batches, 6):
        for target in batch["targets"]:
            nose, left, right = target["keypoints"][0].tolist()
            assert (left[2] == 1) != (right[2] == 1)
            ear = left if left[2] else right
            assert (ear[0] > nose[0]) == (ear is left)
            seen.add(ear is left)
    assert seen == {True, False}


def test_the_log_says_what_a_flip_exchanges(folder, caplog):
    caplog.set_level("INFO")
    train, _ = open_detection_datasets(str(folder), keypoints=True)
    images = DetectionImages(size=40)
    detection_training_batches(train, images, 3, seed=0, workers=0)
    assert "a flip exchanges left_ear and right_ear" in caplog.text
    caplog.clear()
    without = replace(train, layout=train.layout._replace(names=("nose", "one", "other")))
    detection_training_batches(without, images, 3, seed=0, workers=0)
    assert "exchanges no key points" in caplog.text
    caplog.clear()
    detection_training_batches(without, replace(images, hflip=False), 3, seed=0, workers=0)
    assert "exchanges" not in caplog.text


def test_the_writer_writes_what_the_reader_reads(tmp_path):
    layout = KeypointLayout(tuple(NAMES), ((0, 1), (0, 2)))
    category = Category(7, "person")
    writer = CocoWriter([category], layout)
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:20, 4:30] = True
    writer.add_image("1.png", 30, 40)
    writer.add_object(mask, category, keypoints=((5, 6, 2), (8.5, 9, 1), (0, 0, 0)))
    writer.add_object(mask, category)
    writer.save(tmp_path / "annotations" / "person_keypoints_train.json")
    (tmp_path / "train").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "train" / "1.png")
    source = open_detection_dataset(str(tmp_path), "train", keypoints=True)
    assert source.layout == layout
    first, second = source.image(0).annotations
    assert first.keypoints == ((5, 6, 2), (8.5, 9, 1), (0, 0, 0))
    assert (first.num_keypoints, second.num_keypoints) == (2, 0)


def test_photographs_of_coco_are_read(real_data, tmp_path):
    file = real_data / "keypoints_sample.zip"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    with ZipFile(file) as archive:
        archive.extractall(tmp_path)
    for source, images, persons, with_points in zip(
        open_detection_datasets(str(tmp_path), keypoints=True), (41, 44), (172, 118), (86, 68), strict=True
    ):
        annotations = [found for n in range(len(source)) for found in source.image(n).annotations]
        assert len(source) == images
        assert len(annotations) == persons
        assert sum(found.num_keypoints > 0 for found in annotations) == with_points
        assert len(source.keypoint_names) == 17
        assert len(source.skeleton) == 19
        assert not source.problems
        partners = [source.keypoint_names[place] for place in flip_indices(source.keypoint_names)]
        assert partners[:3] == ["nose", "right_eye", "left_eye"]
        assert all(("left" in a) == ("right" in b) for a, b in zip(source.keypoint_names, partners, strict=True))
