import hashlib
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import is_annotated, open_detection_dataset, open_detection_datasets
from botformer.data.image_io import BadImage, decode
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, content, image, write
from tests.data.detection.layout_examples import EXAMPLES, SIZE, labelme, labelme_shape, voc

ONE = content([image(1)], [annotation(1, 1, [1, 2, 3, 4])])
TWO = content([image(2)], [annotation(1, 2, [1, 2, 3, 4]), annotation(2, 2, [1, 2, 3, 4])])


def objects(root: Path) -> list[int]:
    return [source.objects for source in open_detection_datasets(str(root))]


@pytest.mark.parametrize(
    ("train", "validation"), [("train2017", "val2017"), ("train", "val"), ("train", "validation"), ("train", "test")]
)
@pytest.mark.parametrize("prefix", ["instances_", ""])
def test_coco_layouts(tmp_path: Path, train: str, validation: str, prefix: str) -> None:
    write(tmp_path, ONE, f"{prefix}{train}.json", train)
    write(tmp_path, TWO, f"{prefix}{validation}.json", f"images/{validation}")
    assert objects(tmp_path) == [1, 2]
    source = open_detection_dataset(str(tmp_path), validation)
    assert (source.folder / source.name(0)).is_file()


def test_annotations_beside_the_images(tmp_path: Path) -> None:
    for name, data in (("train", ONE), ("valid", TWO)):
        write(tmp_path, data, folder=name).rename(tmp_path / name / "_annotations.coco.json")
    assert objects(tmp_path) == [1, 2]


def test_yolo(tmp_path: Path) -> None:
    pytest.importorskip("supervision")
    for split, count in (("train", 1), ("val", 2)):
        for part in ("images", "labels"):
            (tmp_path / part / split).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / split / "a.png")
        (tmp_path / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n" * count)
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    assert objects(tmp_path) == [1, 2]


def test_splits_that_disagree_on_the_categories_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ONE, "train.json", "train")
    write(tmp_path, TWO | {"categories": [{"id": 7, "name": "cell"}, {"id": 9, "name": "dog"}]}, "val.json", "val")
    with pytest.raises(
        InputError, match=r"train.json knows 3 categories \(0 naïve 人, .*val.json has 2 \(9 dog, 7 cell\)"
    ):
        open_detection_datasets(str(tmp_path))


def test_what_is_not_there_is_said_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; expected one of"):
        open_detection_datasets(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"no annotations of the split 'train' \(found there: nothing\); expected one"):
        open_detection_datasets(str(tmp_path))
    write(tmp_path, ONE, "train2014.json", "train2014")
    with pytest.raises(InputError, match=r"of its 1 images 1 have objects, at least two must; annotate more, or add"):
        open_detection_datasets(str(tmp_path))
    write(tmp_path, ONE, "train2017.json", "train2017")
    with pytest.raises(InputError, match=r"train2014.json and train2017.json: which of them is 'train'\?"):
        open_detection_dataset(str(tmp_path), "train")
    write(tmp_path, ONE, "val.json", "elsewhere")
    with pytest.raises(InputError, match="the images of .*val.json are not there"):
        open_detection_dataset(str(tmp_path), "validation")
    with pytest.raises(InputError, match=r"no annotations of the split 'day' \(found there: annotations, elsewhere, "):
        open_detection_dataset(str(tmp_path), "day")


# One annotation file, and names of files and folders


def cats(root: Path, count: int, empty: int = 0, name: str = "cats.json", folder: str = "images") -> None:
    """Of `count` images with an object and `empty` without."""
    images = [image(number, f"{number:03}.png") for number in range(1, count + empty + 1)]
    write(root, content(images, [annotation(n, n, [1, 2, 3, 4]) for n in range(1, count + 1)]), name, folder)


def names(source: DetectionDataset) -> set[str]:
    return {source.name(index) for index in range(len(source))}


def test_a_tenth_is_held_out_by_a_hash_of_the_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of those with objects and of those without; worked out here once more."""
    cats(tmp_path, 30, empty=20)
    train, validation = open_detection_datasets(str(tmp_path))

    def lowest(numbers: range, most: int) -> set[str]:
        files = [f"{number:03}.png" for number in numbers]
        return set(sorted(files, key=lambda file: hashlib.sha256(file.encode()).hexdigest())[:most])

    assert names(validation) == lowest(range(1, 31), 3) | lowest(range(31, 51), 2)
    assert names(train) | names(validation) == {f"{number:03}.png" for number in range(1, 51)}
    assert (len(train), train.objects, validation.objects) == (45, 27, 3)
    assert "5 of 50 images, a tenth by a hash of their names, are held out" in caplog.text
    assert names(open_detection_dataset(str(tmp_path), "validation")) == names(validation)
    assert names(open_detection_dataset(str(tmp_path), "train")) == names(train)
    assert len(open_detection_dataset(str(tmp_path), "")) == 50


def test_a_record_whose_image_id_is_none_is_a_bad_record_also_where_a_tenth_is_held_out(tmp_path: Path) -> None:
    cats(tmp_path, 10)
    (file,) = tmp_path.rglob("cats.json")
    record = json.loads(file.read_text())
    record["annotations"].append(record["annotations"][0] | {"id": 99, "image_id": [1]})
    file.write_text(json.dumps(record))
    for dataset in open_detection_datasets(str(tmp_path)):
        assert [problem.reason for problem in dataset.problems] == ["image_id is [1], not that of an image"]


def test_a_train_split_alone_stays_whole_by_its_name(tmp_path: Path) -> None:
    cats(tmp_path, 10, name="instances_train2017.json", folder="train2017")
    train, validation = open_detection_datasets(str(tmp_path))
    assert (len(train), len(validation)) == (9, 1)
    assert len(open_detection_dataset(str(tmp_path), "train")) == 10
    assert names(open_detection_dataset(str(tmp_path), "validation")) == names(validation)


def test_a_split_to_validate_on_is_not_trained_on(tmp_path: Path) -> None:
    cats(tmp_path, 10, name="instances_val.json", folder="val")
    with pytest.raises(InputError, match="no annotations of the split 'train'"):
        open_detection_datasets(str(tmp_path))
    assert len(open_detection_dataset(str(tmp_path), "validation")) == 10


def test_test_for_validation_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("Train", "Test"):
        cats(tmp_path, 2, name=f"instances_{name}.json", folder=f"images/{name}")
    assert objects(tmp_path) == [2, 2]
    assert "has nothing to validate on but 'test', which is taken" in caplog.text


def test_two_files_of_which_nobody_knows_the_meant_one_are_refused(tmp_path: Path) -> None:
    cats(tmp_path, 2, name="first.json")
    cats(tmp_path, 2, name="second.json")
    with pytest.raises(InputError, match=r"first.json and second.json: which of them is meant\? Leave only one there"):
        open_detection_datasets(str(tmp_path))


def test_other_json_files_do_no_harm(tmp_path: Path) -> None:
    cats(tmp_path, 2, name="cats.json")
    (tmp_path / "annotations/info.json").write_text('{"info": 1}')
    (tmp_path / "package.json").write_text("[]")
    assert objects(tmp_path) == [1, 1]


def test_both_files_of_a_task_with_key_points(tmp_path: Path) -> None:
    """The one that suits the detector."""
    cats(tmp_path, 4, name="instances_default.json")
    cats(tmp_path, 6, name="person_keypoints_default.json")
    assert [len(open_detection_dataset(str(tmp_path), "", keypoints)) for keypoints in (False, True)] == [4, 6]


@pytest.mark.parametrize("folder", ["images", "images/default", "default", "data", "annotations", ".", "photos/day"])
def test_where_the_images_of_one_file_may_lie(tmp_path: Path, folder: str) -> None:
    cats(tmp_path, 2, name="instances_default.json", folder=folder)
    (tmp_path / "images").mkdir(exist_ok=True)
    assert objects(tmp_path) == [1, 1]


@pytest.mark.parametrize("written", ["images/{}", "images\\{}", "../../media/upload/1/{}", "train/{}"])
def test_file_names_of_exporters(tmp_path: Path, written: str) -> None:
    cats(tmp_path, 2, name="instances_default.json")
    file = tmp_path / "annotations/instances_default.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    for each in data["images"]:
        each["file_name"] = written.format(each["file_name"])
    file.rename(tmp_path / "result.json").write_text(json.dumps(data))
    if "train" in written:
        (tmp_path / "images").rename(tmp_path / "train")
    assert objects(tmp_path) == [1, 1]


def test_a_damaged_file_name_is_said_by_its_place(tmp_path: Path) -> None:
    cats(tmp_path, 12)
    file = tmp_path / "annotations/cats.json"
    file.write_text(file.read_text().replace('"file_name": "', '"file_name": "\\q', 1))
    with pytest.raises(InputError, match=r"cats.json is not JSON: Invalid \\escape"):
        open_detection_datasets(str(tmp_path))


def test_class_folders_are_not_annotated(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "1.jpg")
        (tmp_path / "train" / name / "1.json").write_text('{"title": "1"}')
    (tmp_path / "train/classes.txt").write_text("cat\ndog\n")
    (tmp_path / "config.yaml").write_text("names: [a]\n")
    (tmp_path / "train.json").write_text('[{"image": "1.jpg", "label": 0}]')
    (tmp_path / "splits.json").write_text('{"image": "1.jpg"}\n{"image": "2.jpg"}\n')
    (tmp_path / "pom.xml").write_text("<project/>")
    assert not is_annotated(str(tmp_path))
    assert not is_annotated(str(tmp_path / "nowhere"))


def test_labels_of_splits_match_by_name(tmp_path: Path) -> None:
    """Formats without ids number their classes per split: cat is 1 in train, where bird is 2, and so on."""
    for split, labels in (("train", ("dog", "cat")), ("val", ("dog",))):
        (tmp_path / split).mkdir()
        for label in labels:
            Image.new("RGB", SIZE).save(tmp_path / split / f"{label}.jpg")
            text = labelme(f"{label}.jpg", labelme_shape(label=label))
            (tmp_path / split / f"{label}.json").write_text(text)
    train, validation = open_detection_datasets(str(tmp_path))
    assert [category.name for category in validation.categories] == ["cat", "dog"]
    assert validation.image(0).annotations[0].label == 2
    assert train.categories == validation.categories


def test_labelme_files_in_folders_alone_and_voc_files_in_deeper_ones(tmp_path: Path) -> None:
    pytest.importorskip("supervision")
    for day in ("monday", "tuesday"):
        for part in (f"labelme/{day}", f"voc/JPEGImages/{day}"):
            (tmp_path / part).mkdir(parents=True)
            Image.new("RGB", SIZE).save(tmp_path / part / "1.jpg")
        (tmp_path / "labelme" / day / "1.json").write_text(labelme("1.jpg"))
        (tmp_path / "voc/Annotations" / day).mkdir(parents=True)
        (tmp_path / "voc/Annotations" / day / "1.xml").write_text(voc("1.jpg"))
    for root in ("labelme", "voc"):
        train, validation = open_detection_datasets(str(tmp_path / root))
        assert names(train) | names(validation) == {"monday/1.jpg", "tuesday/1.jpg"}


def test_fiftyone_exports_of_two_splits(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        cats(tmp_path / split, 2, name="labels.json", folder="data")
        (tmp_path / split / "annotations/labels.json").rename(tmp_path / split / "labels.json")
    assert objects(tmp_path) == [2, 2]


def test_annotation_files_beside_the_folders_of_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        cats(tmp_path, 2, name=f"{split}.json", folder=split)
        (tmp_path / f"annotations/{split}.json").rename(tmp_path / f"{split}.json")
    assert objects(tmp_path) == [2, 2]


@pytest.mark.parametrize(
    ("listed", "images", "labels"),
    [
        ("classes.txt", "images/{}", "labels/{}"),
        ("labels/train/classes.txt", "images/{}", "labels/{}"),
        ("classes.txt", "{}/images", "{}/labels"),
        ("obj.names", "{}", "{}"),
    ],
)
def test_splits_of_yolo_without_a_description(tmp_path: Path, listed: str, images: str, labels: str) -> None:
    """What is there to validate on is not trained on."""
    pytest.importorskip("supervision")
    for split, count in (("train", 1), ("val", 2)):
        for folder in (images, labels):
            (tmp_path / folder.format(split)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(tmp_path / images.format(split) / "a.png")
        (tmp_path / labels.format(split) / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n" * count)
    (tmp_path / listed).write_text("cat\n")
    assert objects(tmp_path) == [1, 2]


@pytest.mark.parametrize("folder", ["images", "images/{}", "{}"])
@pytest.mark.parametrize("name", ["annotations/cats_{}.json", "{}_coco_v2.json", "labels/{}.json"])
def test_splits_whose_files_have_other_words_in_their_names(tmp_path: Path, name: str, folder: str) -> None:
    """Also where an image of each split has the same name; files that only sound like them do no harm."""
    for split, data in (("train", ONE), ("val", TWO)):
        number = data["images"][0]["id"] if folder == "images" else 1
        data = data | {"images": [data["images"][0] | {"file_name": f"{number}.png"}]}
        file = tmp_path / name.format(split)
        file.parent.mkdir(exist_ok=True)
        write(tmp_path, data, "written.json", folder.format(split)).rename(file)
        (tmp_path / f"{split}_log.json").write_text('{"loss": 1}')
    assert objects(tmp_path) == [1, 2]
    for source in open_detection_datasets(str(tmp_path)):
        assert (source.folder / source.name(0)).is_file()


def test_crowds_alone_are_named_as_the_reason_that_nothing_can_be_held_out(tmp_path: Path) -> None:
    write(tmp_path, content([image(1)], [annotation(1, 1, [1, 2, 3, 4], iscrowd=1)]), "instances_default.json")
    with pytest.raises(InputError, match=r"the 1 annotations that can be read are all crowds \(iscrowd: 1\).*to 0"):
        open_detection_datasets(str(tmp_path))


@pytest.mark.parametrize("name", ["YOLO without data.yaml", "Pascal VOC", "LabelMe", "VIA project"])
def test_objects_whose_image_is_not_there_are_counted(tmp_path: Path, name: str) -> None:
    """The cat of 2.jpg; it is no bad record, of which none are tolerated here."""
    pytest.importorskip("supervision")
    next(each for each in EXAMPLES if each.name == name).write(tmp_path)
    next(tmp_path.rglob("2.jpg")).unlink()
    for file in tmp_path.rglob("train.txt"):
        file.write_text("1\n2\n")
    if name.startswith("YOLO"):
        (tmp_path / "labels/README.txt").write_text("five words are no label\n")
        (tmp_path / "labels/thumbs.txt").write_bytes(b"\0")
    source = open_detection_dataset(str(tmp_path), "train" if name == "Pascal VOC" else "", max_bad_records=0)
    assert (len(source), source.objects, source.objects_left_out) == (1, 1, 1)


def test_a_folder_around_everything_is_looked_into(tmp_path: Path) -> None:
    """As unpacked archives leave it, with what macOS packs besides; a split alone is not such a folder."""
    cats(tmp_path / "cats-1/export", 2, name="instances_default.json")
    (tmp_path / "__MACOSX").mkdir()
    assert is_annotated(str(tmp_path))
    assert objects(tmp_path) == [1, 1]
    cats(tmp_path / "split/val", 2)
    with pytest.raises(InputError, match="no annotations of the split 'train'"):
        open_detection_datasets(str(tmp_path / "split"))


@pytest.mark.parametrize("name", ["my.json", "labels.json"])
@pytest.mark.parametrize(("kept", "words"), [(0, "is empty"), (30, "ends in the middle")])
def test_a_file_that_was_cut_says_so_where_it_is_named(tmp_path: Path, name: str, kept: int, words: str) -> None:
    file = write(tmp_path, ONE, name, "images")
    file.write_text(file.read_text()[:kept])
    with pytest.raises(InputError, match=f"{name} {words}.*; copy or download it again"):
        open_detection_datasets(str(file))


def test_masks_in_a_folder_of_labels_are_not_yolo(tmp_path: Path) -> None:
    for name in ("images/1.jpg", "labels/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", SIZE).save(tmp_path / name)
    (tmp_path / "labels.txt").write_text("cat\n")
    assert not is_annotated(str(tmp_path))
    (tmp_path / "labels/1.txt").write_text("0 .5 .5 .2 .2\n")
    assert is_annotated(str(tmp_path))


@pytest.mark.timeout(60)  # reading a pipe waits for ever
@pytest.mark.parametrize("what", ["pipe", "folder", "circle"])
@pytest.mark.parametrize("name", ["instances_train.json", "notes.json"])
def test_what_stands_in_place_of_an_annotation_file_is_named(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "train").mkdir()
    file = tmp_path / name
    if what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    else:
        file.symlink_to(name)
    with pytest.raises(InputError, match=name if name.startswith("instances") else str(tmp_path)):
        open_detection_datasets(str(tmp_path))


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_an_image_is_a_bad_image(tmp_path: Path) -> None:
    write(tmp_path, ONE, "instances_train.json", "train")
    file = next((tmp_path / "train").iterdir())
    with pytest.raises(BadImage, match="is a pipe"):
        decode(pipe_at(file), file.name)


def pipe_at(file: Path) -> Path:
    file.unlink()
    os.mkfifo(file)
    return file


@pytest.mark.parametrize("beside", ["README.md", "set.zip", "notes.txt", "labels.csv", ".DS_Store"])
def test_a_file_that_tells_nothing_beside_the_only_folder_does_no_harm(tmp_path: Path, beside: str) -> None:
    cats(tmp_path / "set", 12)
    (tmp_path / beside).write_text("")
    assert is_annotated(str(tmp_path))
    assert sum(map(len, open_detection_datasets(str(tmp_path)))) == 12


@pytest.mark.parametrize("name", ["data.tar", "data.zip", "data.parquet", "table.csv"])
def test_files_of_classifiers_and_others_are_not_annotated(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert not is_annotated(str(tmp_path / name))


@pytest.mark.parametrize("text", ["", "// comment\n{}", "{'a': 1}"])
def test_json_of_something_else_that_cannot_be_read_makes_no_annotations(tmp_path: Path, text: str) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "1.png")
    (tmp_path / "metadata.json").write_text(text)
    assert not is_annotated(str(tmp_path))
    (tmp_path / "metadata.json").write_text('{"images": [], "annotations": [')
    assert is_annotated(str(tmp_path))


def test_why_nothing_is_left_is_said(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "1.json").write_text(labelme("1.jpg", labelme_shape()))
    with pytest.raises(InputError, match=r"has no images \(1 records left out\); expected at least one\n.*1\.json"):
        open_detection_dataset(str(tmp_path), "")
