import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from botformer.data.detection.dataset import Category, DetectionDataset
from botformer.data.detection.keypoints import flip_indices
from botformer.data.detection.yolo_reader import open_yolo
from botformer.errors import InputError

pytest.importorskip("supervision")

SIZE = (50, 40)


def folder(root: Path, labels: dict[str, str], yaml: str = "") -> Path:
    """A data set with an image of 50x40 pixels for every entry, and the given label files (None: no file)."""
    (root / "images/train").mkdir(parents=True)
    (root / "labels/train").mkdir(parents=True)
    for name, text in labels.items():
        Image.fromarray(np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(root / "images/train" / f"{name}.png")
        if text is not None:
            (root / "labels/train" / f"{name}.txt").write_text(text, encoding="utf-8")
    yaml = yaml or "path: .\ntrain: images/train\nval: images/train\nnames: {0: cat, 1: dög}\n"
    (root / "data.yaml").write_text(yaml, encoding="utf-8")
    return root / "data.yaml"


def boxes(source: DetectionDataset, index: int) -> list[tuple[float, ...]]:
    return [tuple(round(side, 3) for side in found.box_xyxy) for found in source.image(index).annotations]


def test_boxes_and_polygons_in_one_file_and_images_without(tmp_path: Path) -> None:
    source = open_yolo(
        folder(
            tmp_path,
            {"b": "1 0.5 0.5 0.2 0.4\n\n0 0.1 0.1 0.5 0.1 0.5 0.8\n", "a": None, "ç": ""},  # type: ignore[dict-item]
        ),
        "train",
    )
    assert source.categories == (Category(0, "cat"), Category(1, "dög"))
    assert [source.name(index) for index in range(3)] == ["a.png", "b.png", "ç.png"]
    assert boxes(source, 0) == boxes(source, 2) == []
    assert boxes(source, 1) == [(20, 12, 30, 28), (5, 4, 25, 32)]
    box, polygon = source.image(1).annotations
    assert (box.label, box.segmentation, box.id) == (2, None, 1)
    assert (polygon.label, polygon.id) == (1, 3)  # the line of the file
    assert polygon.segmentation == [pytest.approx([5, 4, 25, 4, 25, 32])]
    assert polygon.area_px == pytest.approx(20 * 28 / 2)


def test_shares_are_of_the_image_as_it_is_seen(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a": "0 0.5 0.5 1 1"})
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", SIZE).save(tmp_path / "images/train/a.png", exif=exif)
    source = open_yolo(data, "train")
    assert boxes(source, 0) == [(0, 0, 40, 50)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0 0.5 0.5 0.2", "expected at least 5 tokens"),
        ("0 0.5 0.5 0.2 nan", "finite"),
        ("0 0.5 0.5 0.2 x", "could not convert"),
        ("0.5 0.5 0.5 0.2 0.2", "class id"),
        ("2 0.5 0.5 0.2 0.2", "category 2 is not in the list"),
        ("0 0.1 0.1 0.5 nan 0.5 0.8", "finite"),
    ],
)
def test_a_bad_line_is_skipped_and_named_and_one_too_many_stops(tmp_path: Path, line: str, what: str) -> None:
    data = folder(tmp_path, {"a": "", "b": f"0 0.5 0.5 0.2 0.2\n{line}\n"})
    source = open_yolo(data, "train", max_bad_records=1)
    (problem,) = source.problems
    assert str(problem).startswith("image 2 (b.png), annotation 2: ")
    assert what in problem.reason
    assert boxes(source, 1) == [(20, 16, 30, 24)]
    with pytest.raises(InputError, match=r"b\.png"):
        open_yolo(data, "train", max_bad_records=0)


def test_a_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a": "", "b": "0 0.5 0.5 0.2 0.2"})
    (tmp_path / "images/train/a.png").write_bytes(b"no image")
    source = open_yolo(data, "train")
    assert (len(source), source.objects) == (1, 1)
    assert "image 1 (a.png), annotation None: not an image" in str(source.problems[0])


@pytest.mark.parametrize(
    ("yaml", "what"),
    [
        ("- a\n", "must say 'names', 'train' and 'val', found a list"),
        ("train: [\n", "cannot be read"),
        ("val: x\nnames: [a]\n", "names no folder for the split 'train'; it has val, names"),
        ("train: elsewhere\nnames: [a]\n", "'train' is 'elsewhere', but .*elsewhere is no folder"),
        ("train: list.txt\nnames: [a]\n", "'train' is 'list.txt', but .* no list of images"),
        ("train: images/train\n", "names"),
        ("train: images/train\nnames: {a: cat, 1: dog}\n", "expected are the class's id, from 0, and its name"),
        (f"train: images/train\nnames: {{{'9' * 400}: cat}}\n", "expected are the class's id, from 0, and its name"),
        ("train: images/train\nnc: 9999999999\n", "'names' must list the classes"),
        (f"train: images/train\nnc: {'9' * 5000}\n", "'names' must list the classes"),
        (f"train: images/train\nnames: [a]\nkpt_shape: [{'9' * 5000}, 3]\n", "kpt_shape must be"),
        ("train: images/train\nnames: [a]\nkpt_shape: [9999999999, 3]\n", "kpt_shape must be"),
        ("train: images/train\nnames: {1: cat, '01': dog}\n", "has the id 1 twice"),
        ("train: images/train\nnames: [a]\nkpt_shape: [2]\n", "kpt_shape must be .number of key points, 2 or 3."),
        ("train: images/train\nnames: [a]\nkpt_shape: [2, 3]\nflip_idx: [0, 2]\n", "flip_idx must say"),
    ],
)
def test_a_bad_data_yaml_is_refused(tmp_path: Path, yaml: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        open_yolo(folder(tmp_path, {"a": ""}, yaml), "train")


def test_exporters_that_write_a_parent_too_many_are_understood(tmp_path: Path) -> None:
    (tmp_path / "train/images").mkdir(parents=True)
    (tmp_path / "train/labels").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "train/images/a.jpg")
    (tmp_path / "train/labels/a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nnames: [cat]\n")
    assert open_yolo(tmp_path / "data.yaml", "train").objects == 1


# Lines


@pytest.mark.parametrize(
    "line",
    [
        "1 0.5 0.5 0.2 0.4 0.93",  # a confidence
        "1.0 .5 .5 .2 .4",
        "1.000000e+00 5e-1 5e-1 2e-1 4e-1",
        "1\t0.5\t0.5\t0.2\t0.4  ",
        "1,0.5,0.5,0.2,0.4",
        "1, 0.5, 0.5, 0.2, 0.4",
        "1 0,5 0,5 0,2 0,4",
        "# class x y w h\r\n\r\n1 0.5 0.5 0.2 0.4  # a dog\r\n",
        "\ufeff1 0.5 0.5 0.2 0.4",
    ],
)
def test_spellings_of_one_box(tmp_path: Path, line: str) -> None:
    source = open_yolo(folder(tmp_path, {"a": line}), "train")
    assert source.problems == ()
    (found,) = source.image(0).annotations
    assert (found.label, found.box_xyxy, found.segmentation) == (2, pytest.approx((20, 12, 30, 28)), None)


def test_oriented_boxes_and_polygons_with_a_confidence(tmp_path: Path) -> None:
    corners = "0.2 0.5 0.5 0.2 0.8 0.5 0.5 0.8"
    source = open_yolo(folder(tmp_path, {"a": f"0 {corners}\n0 {corners} 0.9\n"}), "train")
    for found in source.image(0).annotations:
        assert found.box_xyxy == pytest.approx((10, 8, 40, 32))
        assert found.segmentation == [pytest.approx([10, 20, 25, 8, 40, 20, 25, 32])]


def test_a_list_may_name_what_is_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path, {"a": "0 .5 .5 .2 .4\n"})
    image = next(tmp_path.rglob("a.*g")).relative_to(tmp_path).as_posix()
    odd = ("/", "//", ".", "..", "./", "../", "\\", "C:\\", "~", "images/", "images/..", "/dev/zero")
    (tmp_path / "train.txt").write_text("\n".join((image, *odd)))
    assert len(open_yolo(yaml(tmp_path, "train: train.txt"), "train")) == 1
    assert f"{len(odd)} listed images are not there and are left out, such as /" in caplog.text


@pytest.mark.parametrize("number", ["9" * 19, "9" * 400, "9" * 5000, "1e999999999", "-1e999999999", "nan"])
def test_an_endless_class_is_none(tmp_path: Path, number: str) -> None:
    source = open_yolo(folder(tmp_path, {"a": f"0 0.9 0.5 0.4 0.5\n{number} 0.5 0.5 0.1 0.1\n"}), "train")
    (problem,) = source.problems
    assert problem.reason.startswith(number[:19])
    assert problem.reason.endswith("is no class's id")


def test_columns_that_numpy_has_written(tmp_path: Path) -> None:
    numpy_line = " ".join(f"{value:.18e}" for value in (0, 0.5, 0.5, 0.2, 0.4))
    (found,) = open_yolo(folder(tmp_path, {"a": numpy_line}), "train").image(0).annotations
    assert found.label == 1  # counted from 1


def test_pixels_are_no_fractions(tmp_path: Path) -> None:
    source = open_yolo(folder(tmp_path, {"a": "0 0.9 0.5 0.4 0.5\n0 25 20 10 10\n"}), "train")
    (problem,) = source.problems
    assert "25 is no fraction of the image (0 to 1); pixels must be divided" in problem.reason
    assert boxes(source, 0) == [(35, 10, 50, 30)]  # over the border, cut to the image


@pytest.mark.parametrize("confidence", ["", " .87"])
def test_numbers_of_tracks_are_said_and_not_used(tmp_path: Path, caplog, confidence: str) -> None:
    labels = {name: "".join(f"0 .5 .5 .2 .4{confidence} {n}\n" for n in (1, 2, 12)) for name in "ab"}
    source = open_yolo(folder(tmp_path, labels), "train")
    assert (source.problems, source.objects) == ((), 6)
    assert boxes(source, 0) == boxes(source, 1) == [pytest.approx((20, 12, 30, 28))] * 3
    assert all(found.segmentation is None for found in source.image(0).annotations)
    assert "lines end with the number of a track, which is not used" in caplog.text


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0 .5 .5 .2 .4 30\n0 .5 .5 .2 .4 30\n", "30 behind a box is no confidence (0 to 1); turned boxes"),  # angles
        ("0 .5 .5 .2 .4 .9\n0 .5 .5 .2 .4 30\n", "30 behind a box is no confidence (0 to 1); turned boxes"),
        ("0 .1 .1 .2 .4 .8 .9\n0 .1 .1 .2 .4 .8 3\n", "3 is no fraction of the image"),  # of a triangle
        ("0 10 10 20 10 10 20\n", "10 is no fraction of the image (0 to 1); pixels must be divided"),
    ],
)
def test_other_numbers_are_no_tracks(tmp_path: Path, lines: str, words: str) -> None:
    source = open_yolo(folder(tmp_path, {"a": lines}), "train", max_bad_records=2)
    assert all(problem.reason.startswith(words) for problem in source.problems)
    assert len(source.problems) >= 1


@pytest.mark.parametrize("spelling", ["images/all/", "./images/all", "images//all"])
def test_the_same_folder_spelled_otherwise_is_said(tmp_path: Path, caplog, spelling: str) -> None:
    pair(tmp_path, "images/all/a.png", "labels/all/a.txt")
    data = yaml(tmp_path, f"train: images/all\nval: {spelling}")
    assert len(open_yolo(data, "validation")) == 1
    assert "what is measured there was seen in training" in caplog.text


# Key points

POSE = "path: .\ntrain: images/train\nnames: [cat]\nkpt_shape: "


def test_a_pose_label_is_a_box_with_key_points(tmp_path: Path) -> None:
    data = folder(
        tmp_path, {"a": "0 .5 .5 .2 .4 .4 .4 2 .6 .6 1\n0 .5 .5 .2 .4\n"}, POSE + "[2, 3]\nflip_idx: [1, 0]\n"
    )
    for found in open_yolo(data, "train").image(0).annotations:
        assert (found.box_xyxy, found.segmentation) == (pytest.approx((20, 12, 30, 28)), None)
        assert found.keypoints is None
    source = open_yolo(data, "train", keypoints=True)
    labelled, bare = source.image(0).annotations
    assert labelled.keypoints == (pytest.approx((20, 16, 2)), pytest.approx((30, 24, 1)))
    assert (labelled.num_keypoints, bare.num_keypoints) == (2, 0)
    assert flip_indices(source.keypoint_names) == [1, 0]


def test_pose_labels_without_visibility_and_with_a_confidence(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a": "0 .5 .5 .2 .4 .4 .4 0 0\n0 .5 .5 .2 .4 .4 .4 .6 .6 .9\n"}, POSE + "[2, 2]\n")
    source = open_yolo(data, "train", keypoints=True)
    first, second = source.image(0).annotations
    assert first.keypoints == (pytest.approx((20, 16, 2)), (0, 0, 0))
    assert second.keypoints == (pytest.approx((20, 16, 2)), pytest.approx((30, 24, 2)))
    assert flip_indices(source.keypoint_names) == [0, 1]


def test_a_pose_label_of_another_length_is_skipped_and_named(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a": "0 .5 .5 .2 .4 .4 .4 2\n"}, POSE + "[2, 3]\n")
    (problem,) = open_yolo(data, "train").problems
    assert "8 numbers; kpt_shape says 5, or 11 for a box and 2 key points" in problem.reason


def test_key_points_that_nobody_announced_are_no_polygon(tmp_path: Path) -> None:
    """Their v of 2 is no fraction."""
    source = open_yolo(folder(tmp_path, {"a": "0 .5 .5 .25 .5 .4 .4 2 .6 .6 1"}), "train")
    assert source.objects == 0
    assert "key points need kpt_shape in data.yaml" in source.problems[0].reason


def test_seventeen_points_that_flip_as_cocos_are_cocos(tmp_path: Path) -> None:
    flips = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    line = "0 .5 .5 .2 .4" + " .5 .5 2" * 17
    source = open_yolo(folder(tmp_path, {"a": line}, f"{POSE}[17, 3]\nflip_idx: {flips}\n"), "train", keypoints=True)
    assert source.keypoint_names[:2] == ("nose", "left_eye")
    assert len(source.skeleton) == 19
    assert flip_indices(source.keypoint_names) == flips


# Names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("{1: cat, 2: dog}", [(1, "cat"), (2, "dog")]),
        ("{'1': cat, 7: dog}", [(1, "cat"), (7, "dog")]),
        ("{2: dog, 1: cat}", [(1, "cat"), (2, "dog")]),
        ("[yes, no]", [(0, "yes"), (1, "no")]),
        ("[off, null, 1.10, 2024-01-01, ~, 0x10]", list(enumerate(["off", "null", "1.10", "2024-01-01", "~", "0x10"]))),
        ("\n  1: yes\n  3: 007", [(1, "yes"), (3, "007")]),
    ],
)
def test_names_are_what_is_written_and_their_keys_are_ids(tmp_path: Path, names: str, expected: list) -> None:
    data = folder(tmp_path, {"a": "1 .5 .5 .2 .4"}, f"train: images/train\nnames: {names}\n")
    source = open_yolo(data, "train")
    assert [tuple(category) for category in source.categories] == expected
    (found,) = source.image(0).annotations
    assert source.categories[found.label - 1].id == 1


def test_a_number_of_classes_that_disagrees_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folder(tmp_path, {"a": "1 .5 .5 .2 .4"}, "train: images/train\nnc: 3\nnames: [cat, dog]\n")
    open_yolo(data, "train")
    assert "nc is 3, but there are 2 names" in caplog.text


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    data = folder(tmp_path, {"a": "1 .5 .5 .2 .4"}, "train: images/train\nnc: 2\n")
    assert open_yolo(data, "train").categories == (Category(0, "0"), Category(1, "1"))


# Folders, links and lists


def pair(root: Path, image: str, label: str | None) -> None:
    for name in filter(None, (image, label)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE).save(root / image)
    if label:
        (root / label).write_text("0 0.5 0.5 0.2 0.4\n")


def yaml(root: Path, text: str) -> Path:
    (root / "data.yaml").write_text(f"{text}\nnames: [cat]\n")
    return root / "data.yaml"


def read(source: DetectionDataset) -> dict[str, int]:
    """File -> objects."""
    images = [source.image(index) for index in range(len(source))]
    assert all((source.folder / image.file).is_file() for image in images)
    return {image.file: len(image.annotations) for image in images}


def test_sub_folders_are_searched_and_what_has_no_partner_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair(tmp_path, "images/train/a.png", "labels/train/a.txt")
    pair(tmp_path, "images/train/north/a.JPG", "labels/train/north/a.txt")
    pair(tmp_path, "images/train/north/deep/b.jpeg", None)
    (tmp_path / "images/train/c.heic").write_bytes(b"")
    (tmp_path / "labels/train/north/lost.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "labels/train/classes.txt").write_text("cat\n")
    source = open_yolo(yaml(tmp_path, "train: images/train"), "train")
    assert read(source) == {"a.png": 1, "north/a.JPG": 1, "north/deep/b.jpeg": 0}
    assert "1 of 3 images have no label file and count as images without objects" in caplog.text
    assert "1 label files have no image and are left out, such as" in caplog.text
    assert "north/lost.txt" in caplog.text
    assert "1 files are left out because of their endings: 1 .heic" in caplog.text


def test_labels_lie_beside_a_link_not_beside_what_it_leads_to(tmp_path: Path) -> None:
    pair(tmp_path / "set", "labels/train/a.png", "labels/train/a.txt")
    (tmp_path / "set/labels/train/a.png").unlink()
    pair(tmp_path / "elsewhere", "images/photos/a.png", None)
    (tmp_path / "set/images").mkdir()
    (tmp_path / "set/images/train").symlink_to(tmp_path / "elsewhere/images/photos", target_is_directory=True)
    assert read(open_yolo(yaml(tmp_path / "set", "train: images/train"), "train")) == {"a.png": 1}


def test_links_in_a_circle_end_and_count_once(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/a.png", "labels/train/a.txt")
    pair(tmp_path, "images/train/sub/b.png", "labels/train/sub/b.txt")
    for name in ("one", "two", "sub/three"):
        (tmp_path / "images/train" / name).symlink_to(tmp_path / "images/train", target_is_directory=True)
    assert read(open_yolo(yaml(tmp_path, "train: images/train"), "train")) == {"a.png": 1, "sub/b.png": 1}


@pytest.mark.parametrize("labels", ["train/a.txt", "train/labels/a.txt"])
def test_labels_beside_the_images_or_beside_their_folder(tmp_path: Path, labels: str) -> None:
    pair(tmp_path, labels.replace("labels", "images").replace(".txt", ".png"), labels)
    assert read(open_yolo(yaml(tmp_path, f"train: {Path(labels.replace('labels', 'images')).parent}"), "train")) == {
        "a.png": 1
    }


def test_no_label_anywhere_stops(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/a.png", None)
    with pytest.raises(
        InputError, match=r"none of the 1 images has a label file; that of a.png .* must lie in .*labels/train, which"
    ):
        open_yolo(yaml(tmp_path, "train: images/train"), "train")


def test_a_list_of_folders_and_files(tmp_path: Path) -> None:
    pair(tmp_path, "images/day/a.png", "labels/day/a.txt")
    pair(tmp_path, "images/night/a.png", "labels/night/a.txt")
    pair(tmp_path, "images/more/c.png", "labels/more/c.txt")
    (tmp_path / "more.txt").write_text("./images/more/c.png\n")
    source = open_yolo(yaml(tmp_path, "train: [images/day, images/night, more.txt]"), "train")
    assert read(source) == {"day/a.png": 1, "more/c.png": 1, "night/a.png": 1}


def test_endings_of_labels_in_capitals(tmp_path: Path) -> None:
    pair(tmp_path, "images/train/a.png", "labels/train/a.TXT")
    pair(tmp_path, "images/train/b.png", "labels/train/b.txt")
    (tmp_path / "labels/train/lost.TXT").write_text("0 .5 .5 .2 .4\n")
    source = open_yolo(yaml(tmp_path, "train: images/train"), "train")
    assert read(source) == {"a.png": 1, "b.png": 1}
    assert [problem.objects for problem in source.problems] == [1]


def test_folders_below_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pair(tmp_path / "y", "images/a/1.png", "labels/a/1.txt")
    pair(tmp_path / "z", "images/2.png", "labels/2.txt")
    source = open_yolo(yaml(Path("y"), f"train: [images/a, {tmp_path}/z/images]"), "train")
    assert read(source) == {"y/images/a/1.png": 1, "z/images/2.png": 1}


@pytest.mark.parametrize(
    "line",
    [
        "images/train/a.png",
        "./images/train/a.png",
        "images\\train\\a.png",
        "C:\\Users\\me\\set\\images\\train\\a.png",
        "/home/somebody/set/images/train/a.png",
        "data/images/train/a.png",
        "\ufeffimages/train/a.png\r\nimages/train/a.png\r\nimages/train/gone.png",
    ],
)
def test_listed_paths_of_other_machines(tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, "images/train/a.png", "labels/train/a.txt")
    (tmp_path / "train.txt").write_text(line, encoding="utf-8")
    assert read(open_yolo(yaml(tmp_path, "train: train.txt"), "train")) == {"a.png": 1}
    if "gone" in line:
        assert "1 images more than once" in caplog.text
        assert "1 listed images are not there and are left out, such as images/train/gone.png" in caplog.text


def test_a_list_relative_to_itself_and_a_list_of_nothing(tmp_path: Path) -> None:
    pair(tmp_path, "lists/images/a.png", "lists/labels/a.txt")
    (tmp_path / "lists/train.txt").write_text("images/a.png\n")
    assert read(open_yolo(yaml(tmp_path, "train: lists/train.txt"), "train")) == {"a.png": 1}
    (tmp_path / "lists/train.txt").write_text("images/b.png\n")
    with pytest.raises(InputError, match=r"none of the 1 images that it lists is there, such as images/b.png"):
        open_yolo(yaml(tmp_path, "train: lists/train.txt"), "train")


@pytest.mark.parametrize("on_disk", ["é.png", "\udce9.png"])
def test_names_that_are_not_utf8(tmp_path: Path, on_disk: str) -> None:
    """A list in Windows' code page, of a file whose name is UTF-8 on the disk, or the same bytes."""
    pair(tmp_path, f"images/{on_disk}", f"labels/{on_disk[0]}.txt")
    (tmp_path / "train.txt").write_bytes("images/é.png\n".encode("cp1252"))
    source = open_yolo(yaml(tmp_path, "train: train.txt"), "train")
    assert read(source) == {on_disk: 1}


@pytest.mark.parametrize("path", [".", "", "/content/datasets/set", "C:\\set", "set", "../set", "missing"])
def test_the_path_of_a_data_set_that_was_moved(tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path / "set", "images/train/a.png", "labels/train/a.txt")
    source = open_yolo(yaml(tmp_path / "set", f"path: {path}\ntrain: images/train"), "train")
    assert read(source) == {"a.png": 1}
    assert ("is not there; what it names is looked for beside the file" in caplog.text) == (
        path in ("/content/datasets/set", "C:\\set", "set", "missing")
    )


def test_a_split_is_never_taken_for_another(tmp_path: Path) -> None:
    """valid/images is not there; images is, and is another."""
    pair(tmp_path, "images/a.png", "labels/a.txt")
    data = yaml(tmp_path, "train: images\nval: ../valid/images")
    with pytest.raises(InputError, match=r"'val' is '../valid/images', but .* is no folder"):
        open_yolo(data, "validation")


def test_test_for_validation_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, "images/a.png", "labels/a.txt")
    caplog.set_level(logging.INFO)
    open_yolo(yaml(tmp_path, "val:\ntest: images"), "validation")
    assert "nothing to validate on but 'test', which is taken" in caplog.text


def test_a_number_behind_a_box_that_is_no_confidence_is_refused(tmp_path: Path) -> None:
    source = open_yolo(folder(tmp_path, {"a": "0 .5 .5 .4 .1 .9\n0 .5 .5 .4 .1 45.0\n"}), "train")
    (problem,) = source.problems
    assert (len(boxes(source, 0)), problem.annotation_id) == (1, 2)
    assert problem.reason == "45.0 behind a box is no confidence (0 to 1); turned boxes are exported as four corners"


def test_words_that_lead_to_the_training_images_by_chance_are_refused(tmp_path: Path, caplog) -> None:
    """Of ../fold1/images and ../fold2/images neither is there, but images is."""
    yaml = "train: ../fold1/images\nval: ../fold2/images\nnames: {0: cat}\n"
    data = folder(tmp_path / "set", {"a": "0 0.5 0.5 1 1"}, yaml)
    assert len(open_yolo(data, "train")) == 1
    with pytest.raises(
        InputError, match=r"'train' is '../fold1/images' and 'val' is '../fold2/images'; they are not both there"
    ):
        open_yolo(data, "validation")
    data.write_text("train: images/train\nval: images/train\nnames: {0: cat}\n")
    assert len(open_yolo(data, "validation")) == 1
    assert "'train' and 'val' are both images/train: what is measured there was seen in training" in caplog.text
