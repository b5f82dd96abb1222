import json
import logging
from pathlib import Path

import pytest

from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.image_paths import find_files
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, content, image, write


def folder(root: Path, *files: str) -> Path:
    """DIR/data/train with these files."""
    for file in files:
        (root / "data" / "train" / file).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / "train" / file).touch()
    return root / "data" / "train"


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("x.jpg", "x.jpg"),
        ("./x.jpg", "x.jpg"),
        (".//sub/./x.jpg", "sub/x.jpg"),
        ("sub\\x.jpg", "sub/x.jpg"),
        ("images/x.jpg", "x.jpg"),
        ("train/x.jpg", "x.jpg"),
        ("images/train/x.jpg", "x.jpg"),
        ("train/sub/x.jpg", "sub/x.jpg"),
        ("..\\data\\train\\x.jpg", "x.jpg"),
        ("/home/ann/export/train/x.jpg", "x.jpg"),
        ("C:\\Users\\ann\\train\\sub\\x.jpg", "sub/x.jpg"),
        ("file:///home/ann/x.jpg", "x.jpg"),
        ("https://host.example/bucket/x%20%281%29.jpg?token=1%2F2", "x (1).jpg"),
        ("x%20%281%29.jpg", "x (1).jpg"),
        ("50%25.jpg", "50%25.jpg"),
        ("/data/local-files/?d=sub%5Cx.jpg", "sub/x.jpg"),
        ("x.jpg", "sub/x.jpg"),
        ("etage/e\u0301.jpg", "\u00e9.jpg"),
        ("\u00e9.jpg", "e\u0301.jpg"),
        ("X.JPG", "x.jpg"),
        ("x.jpg", "Sub/X.jpg"),
    ],
)
def test_names_as_exporters_write_them(written: str, file: str, tmp_path: Path) -> None:
    here = folder(tmp_path, file, "another.jpg", ".hidden/x.jpg", "@eaDir/x.jpg", "__MACOSX/x.jpg")
    assert find_files([written], here, "a.json")[written] in (file, written.replace("\\", "/"))
    found = here / find_files([written], here, "a.json")[written]
    assert found.resolve() == (here / file).resolve()


@pytest.mark.parametrize("written", ["y.jpg", "other/x.jpg", "sub", "", "..", "\0", "z" * 300 + ".jpg", "?d="])
def test_what_is_not_there_is_not_guessed(written: str, tmp_path: Path) -> None:
    assert find_files([written], folder(tmp_path, "sub/x.jpg"), "a.json") == {}


def test_what_is_written_exactly_comes_first(tmp_path: Path) -> None:
    here = folder(tmp_path, "x.jpg", "a/x.jpg", "b/x.jpg")
    assert find_files(["b/x.jpg", "x.jpg"], here, "a.json") == {"b/x.jpg": "b/x.jpg", "x.jpg": "x.jpg"}
    assert find_files(["train/a/x.jpg"], here, "a.json") == {"train/a/x.jpg": "a/x.jpg"}


def test_two_files_for_a_name_or_two_names_for_a_file_are_an_error(tmp_path: Path) -> None:
    here = folder(tmp_path, "a/x.jpg", "b/x.jpg")
    with pytest.raises(InputError, match=r"a.json: file_name 'x.jpg' may be a/x.jpg, b/x.jpg in .*write the path"):
        find_files(["x.jpg"], here, "a.json")
    with pytest.raises(InputError, match=r"a.json: b/x.jpg in .* may be any of the file_names 1/b/x.jpg, 2/b/x.jpg"):
        find_files(["1/b/x.jpg", "2/b/x.jpg"], here, "a.json")


def test_a_file_that_another_name_means_more_closely_is_not_taken_twice(tmp_path: Path) -> None:
    here = folder(tmp_path, "x.jpg")
    assert find_files(["val/x.jpg", "x.jpg"], here, "a.json") == {"x.jpg": "x.jpg"}
    assert find_files(["val/x.jpg", "train/x.jpg"], here, "a.json") == {"train/x.jpg": "x.jpg"}


def test_linked_folders_are_read_where_they_are_named(tmp_path: Path) -> None:
    here = folder(tmp_path, "x.jpg")
    (here / "loop").symlink_to(here, target_is_directory=True)
    assert find_files(["x.jpg"], here, "a.json") == {"x.jpg": "x.jpg"}
    assert find_files(["loop/x.jpg"], here, "a.json") == {"loop/x.jpg": "loop/x.jpg"}


def test_a_coco_file_with_such_names_is_read_and_it_is_said_once(tmp_path: Path, caplog) -> None:
    images = [image(1, "1.png"), image(2, "sub/2.png"), image(3, "3.png")]
    data = content(images, [annotation(number, number, [1, 2, 3, 4]) for number in (1, 2, 3)])
    write(tmp_path, data)
    for record, name in zip(images, ("train/1.png", "sub\\2.png", "gone/4.png"), strict=True):
        record["file_name"] = name
        del record["width"]
    (tmp_path / "a.json").write_text(json.dumps(data), encoding="utf-8")
    with caplog.at_level(logging.INFO, "botformer.data"):
        source = open_coco(tmp_path / "a.json", tmp_path / "train")
    assert [source.name(index) for index in range(len(source))] == ["1.png", "sub/2.png"]
    assert (source.objects, source.objects_left_out) == (2, 1)
    assert caplog.text.count("2 images lie under another path") == 1
    assert "train/1.png is 1.png" in caplog.text
