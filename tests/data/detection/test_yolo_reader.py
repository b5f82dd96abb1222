from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from botformer.data.detection.dataset import Category, DetectionDataset
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
        ("train: list.txt\nnames: [a]\n", "must be one folder of images, got 'list.txt'"),
        ("train: images/train\n", "names"),
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
