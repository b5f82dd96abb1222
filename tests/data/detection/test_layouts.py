from pathlib import Path

import pytest
from PIL import Image

from botformer.data.detection.layouts import open_detection_dataset, open_detection_datasets
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, content, image, write

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
    with pytest.raises(InputError, match=r"split 'validation' \(found there: annotations, train2014\)"):
        open_detection_datasets(str(tmp_path))
    write(tmp_path, ONE, "train2017.json", "train2017")
    with pytest.raises(InputError, match=r"train2014.json and train2017.json: which of them is 'train'\?"):
        open_detection_dataset(str(tmp_path), "train")
    write(tmp_path, ONE, "val.json", "elsewhere")
    with pytest.raises(InputError, match="the images of .*val.json are not there"):
        open_detection_dataset(str(tmp_path), "validation")
