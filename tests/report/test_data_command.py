"""botformer data: planted mistakes are found, and the exit code says whether training would work."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from botformer import cli
from botformer.commands.screen import progress_bar
from botformer.report.inspection import inspect_data
from tests.data.detection.coco_files import annotation, content, image, write

from .pages import Page, scene, write_folders

pytest.importorskip("imagehash")
pytest.importorskip("faster_coco_eval")

FOLDERS = {"train/cat": 24, "train/dog": 24, "validation/cat": 5, "validation/dog": 5}


def bar(title):
    return progress_bar(title, quiet=True)


def findings(data, **options):
    return inspect_data(str(data), options.get("checkpoint"), options.get("fast", False), bar).findings


def run(data, tmp_path, *more):
    """The exit status."""
    try:
        return cli.main(["data", str(data), "--out", str(tmp_path / "page.html"), *more])
    except SystemExit as ended:
        return ended.code


def of(found, words):
    (one,) = [finding for finding in found if words in finding.what]
    return one


def test_clean_folders_have_nothing_but_their_size_said(tmp_path, capsys):
    data = write_folders(tmp_path / "data", FOLDERS)
    assert run(data, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "48 train, 10 validation images, 2 classes. Training works." in printed
    assert [finding.what.split(":")[0] for finding in findings(data)] == ["10 validation images"]
    assert findings(data)[0].severity == "note"
    page = Page(tmp_path / "page.html")
    assert "48 train, 10 validation images" in page.text
    assert page.images >= 24


def test_planted_copies_between_and_within_splits_are_found_with_images(tmp_path):
    data = write_folders(tmp_path / "data", FOLDERS)
    shutil.copy(data / "train/cat/3.png", data / "validation/cat/leak.png")
    Image.open(data / "train/dog/4.png").save(data / "validation/dog/nearly.jpg", quality=70)
    shutil.copy(data / "train/dog/7.png", data / "train/cat/mislabelled.png")
    found = findings(data)
    exact = of(found, "validation image is also among the training images (byte for byte)")
    assert (exact.severity, exact.count) == ("warning", 1)
    assert exact.listed == ["validation: cat/leak.png = train: cat/3.png"]
    assert [(ref.split) for ref in exact.examples[0].images] == ["validation", "train"]
    near = of(found, "validation image is also among the training images (nearly)")
    assert near.listed == ["validation: dog/nearly.jpg = train: dog/4.png"]
    conflict = of(found, "different labels")
    assert conflict.listed == ["train: cat/mislabelled.png (cat) = train: dog/7.png (dog)"]
    assert of(found, "repeats another there byte for byte").where == "train"
    assert [finding.severity for finding in found] == sorted(
        (finding.severity for finding in found), key=["error", "warning", "note"].index
    )
    assert run(data, tmp_path) == 0
    assert "cat/leak.png = train: cat/3.png" in Page(tmp_path / "page.html").text


def test_a_second_look_says_the_same(tmp_path):
    data = write_folders(tmp_path / "data", FOLDERS)
    shutil.copy(data / "train/cat/3.png", data / "validation/cat/leak.png")
    pages = []
    for _ in range(2):
        assert run(data, tmp_path) == 0
        pages.append((tmp_path / "page.html").read_bytes())
    assert pages[0] == pages[1]


def test_unreadable_images_are_named_and_too_many_stop(tmp_path, capsys):
    data = write_folders(tmp_path / "data", FOLDERS)
    (data / "train/cat/0.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    found = of(findings(data), "cannot be read")
    assert (found.severity, found.where, found.count) == ("warning", "train", 1)
    assert found.listed[0].startswith("cat/0.png: ")
    for number in range(21):
        (data / f"train/cat/{number}.png").write_bytes(b"")
    assert run(data, tmp_path) == 1
    assert "ERROR: 21 images of 48 cannot be read; training stops at more than 20 (train)" in capsys.readouterr().out
    Page(tmp_path / "page.html")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"cat": 12}, "one class"),
        ({"train/cat": 5, "train/dog": 5}, "nothing to validate on"),
        ({"train/cat": 5, "train/dog": 5, "validation/cat": 2, "validation/cow": 2}, "cow"),
        ({"cat": 1, "dog": 1}, "no image to validate on"),
        ({"train/cat": 5, "train/dog": 0, "validation/cat": 2}, "no images"),
    ],
)
def test_what_training_refuses_exits_with_1_and_says_why(tmp_path, capsys, counts, words):
    data = write_folders(tmp_path / "data", counts)
    assert run(data, tmp_path) == 1
    printed = capsys.readouterr().out
    assert "ERROR" in printed
    assert words in printed
    assert words in Page(tmp_path / "page.html").text


@pytest.mark.parametrize("test", [{"test/cat": 2, "test/cow": 2}, {"test/cat": 2, "test/dog": 0}])
def test_a_test_split_that_cannot_be_used_is_a_warning(tmp_path, capsys, test):
    data = write_folders(tmp_path / "data", FOLDERS | test)
    assert run(data, tmp_path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Training works." in printed
    assert "WARNING: the test split cannot be used: " in printed


def test_unreadable_test_images_do_not_stop_a_training_that_never_opens_them(tmp_path, capsys):
    data = write_folders(tmp_path / "data", FOLDERS | {"test/cat": 2, "test/dog": 2})
    for file in (data / "test").rglob("*.png"):
        file.write_bytes(b"")
    assert run(data, tmp_path) == 0
    assert "WARNING: 4 images of 4 cannot be read; an evaluation leaves them out (test)" in capsys.readouterr().out


def test_a_mistyped_folder_is_bad_input(tmp_path, capsys):
    assert run(tmp_path / "absent", tmp_path) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_class_in_training_alone_few_images_and_uneven_ones_are_warnings(tmp_path):
    data = write_folders(
        tmp_path / "data",
        {"train/cat": 55, "train/dog": 5, "train/cow": 25, "validation/cat": 3, "validation/dog": 1},
    )
    found = findings(data)
    assert all(finding.severity != "error" for finding in found)
    assert "cow" in of(found, "has no images of 1 of the 3 classes").what
    assert "dog (5)" in of(found, "fewer than 20 images to learn from").what
    assert "cat has 55 images, dog 5 (11 times fewer)" in of(found, "uneven").what


def test_odd_files_are_counted_by_what_is_odd(tmp_path):
    data = write_folders(tmp_path / "data", FOLDERS)
    exif = Image.Exif()
    exif[0x0112] = 3
    scene(901).save(data / "train/cat/turned.jpg", exif=exif)
    scene(902, 400, 100).save(data / "train/cat/long.png")
    scene(903, 20, 20).save(data / "train/cat/tiny.png")
    Image.fromarray(np.arange(20000, dtype=np.uint16).reshape(100, 200)).save(data / "train/cat/deep.png")
    Image.new("RGB", (100, 80), "black").save(data / "train/cat/black.png")
    (data / "train/cat/notes.txt").write_text("no image")
    found = findings(data)
    for words, name in {
        "by EXIF": "turned.jpg",
        "3 times as long as wide": "long.png",
        "narrower or lower than 32 px": "tiny.png",
        "more than 8 bits": "deep.png",
        "one colour": "black.png",
    }.items():
        assert of(found, words).count == 1
        assert name in of(found, words).listed[0]
    assert "1 .txt" in of(found, "left out because of their endings").what


def test_fast_reads_headers_and_says_what_it_did_not_look_at(tmp_path, capsys):
    data = write_folders(tmp_path / "data", FOLDERS)
    shutil.copy(data / "train/cat/3.png", data / "validation/cat/leak.png")
    assert run(data, tmp_path, "--fast") == 0
    printed = capsys.readouterr().out
    assert "also among" not in printed
    assert "--fast" in printed


# Annotated images


def coco(root: Path, **changes) -> Path:
    """Six images to train on and three to validate on, of 40x30, with two objects each."""
    for name, folder, start, count in (("train", "train", 1, 6), ("val", "val", 101, 3)):
        images = [image(start + number) for number in range(count)]
        objects = []
        for record in images:
            for place, box in enumerate(([2, 3, 12, 14], [20, 5, 15, 20])):
                objects.append(
                    annotation(2 * record["id"] + place, record["id"], box, category_id=(7, 90)[place], area=box[2] * 9)
                )
        change = changes.get(name, lambda images, objects: None)
        change(images, objects)
        write(root, content(images, objects), f"instances_{name}.json", folder)
    return root


def test_annotated_images_are_described(tmp_path, capsys):
    data = coco(tmp_path / "data")
    assert run(data, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "(COCO): boxes alone: 6 train, 3 validation images, 3 classes" in printed
    assert "naïve 人" in printed
    page = Page(tmp_path / "page.html")
    assert "1024 px (judged by)" in page.text


def test_planted_mistakes_of_annotations_are_found(tmp_path):
    def change(images, objects):
        objects += [
            annotation(1000, 1, [50, 40, 10, 10]),  # outside
            annotation(1001, 1, [5, 5, 0, 10]),  # no area
            annotation(1002, 2, [2.2, 3, 12, 14]),  # the first object of image 2 again
            *(annotation(2000 + n, 6, [3 + 0.2 * n, 2, 4 + 0.1 * n, 9]) for n in range(101)),
        ]
        images.append(image(50, "empty.png"))

    data = coco(tmp_path / "data", train=change)
    os.remove(data / "train" / "3.png")
    Image.new("RGB", (30, 40)).save(data / "train" / "4.png")  # its record says 40x30
    found = findings(data)
    left_out = [finding for finding in found if "left out" in finding.what and finding.where == "train"]
    assert sum(finding.count for finding in left_out) == 2
    twice = of(found, "annotated twice")
    assert any(line.startswith("2.png: box 2, 3, 14, 17") for line in twice.listed)
    assert of(found, "have no objects").listed == ["empty.png"]
    assert "more than 100 objects (up to 103)" in of(found, "more than 100 objects").what
    unreadable = of(found, "cannot be read")
    assert [line.split(":")[0] for line in unreadable.listed] == ["3.png", "4.png"]
    assert "30x40" in unreadable.listed[1]
    assert "1 of 3 classes has no objects in train" in of(found, "has no objects in train").what


def test_validation_without_objects_stops_as_it_stops_training(tmp_path, capsys):
    data = coco(tmp_path / "data", val=lambda images, objects: objects.clear())
    assert run(data, tmp_path) == 1
    assert "no objects to measure by" in capsys.readouterr().out
    assert cli.main(["train", "nuclei_mini", "--data", str(data), "--out", str(tmp_path / "run")]) == 2


def test_too_many_bad_records_stop_but_the_rest_is_shown(tmp_path, capsys):
    def change(images, objects):
        objects += [annotation(3000 + number, 777, [1, 1, 5, 5]) for number in range(21)]

    data = coco(tmp_path / "data", train=change)
    assert run(data, tmp_path) == 1
    printed = capsys.readouterr().out
    assert "21 annotations make no sense, 20 are tolerated" in printed
    assert "6 train, 3 validation images" in printed


def test_small_objects_are_said_with_the_canvas_that_would_do(tmp_path):
    def change(images, objects):
        images.append(image(60, "large.png", 2000, 1000))
        objects += [annotation(4000 + n, 60, [10 * n, 10, 1.5, 5]) for n in range(20)]

    found = of(findings(coco(tmp_path / "data", train=change)), "on the canvas of 1024 px")
    assert "20 of 32 objects (62.5 %) are narrower or lower than 1 px" in found.what
    assert "--images.size" in found.fix


def test_yolo_labels_without_images_are_said(tmp_path):
    for split, names in (("train", "abcd"), ("val", "ef")):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for number, name in enumerate(names):
            scene(len(split) * 100 + number).save(tmp_path / "data/images" / split / f"{name}.png")
            (tmp_path / "data/labels" / split / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.3\n")
    (tmp_path / "data/labels/train/lost.txt").write_text("0 0.5 0.5 0.2 0.3\n")
    (tmp_path / "data/labels/train/a.txt").unlink()
    (tmp_path / "data/data.yaml").write_text("train: images/train\nval: images/val\nnames: [cell]\n")
    found = findings(tmp_path / "data")
    assert "(YOLO)" in inspect_data(str(tmp_path / "data"), None, True, bar).data.layout
    assert of(found, "have no label file").severity == "warning"
    assert "lost.txt" in " ".join([of(found, "label files have no image").what])


def test_the_reader_is_not_heard_twice(tmp_path, capsys):
    data = write_folders(tmp_path / "data", FOLDERS)
    (data / "train/cat/notes.txt").write_text("no image")
    assert run(data, tmp_path) == 0
    heard = capsys.readouterr()
    assert (heard.out + heard.err).count("left out because of their endings") == 1


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit):
        cli.main(["data", "--help"])
    assert "--checkpoint" in capsys.readouterr().out


def test_file_names_do_not_become_markup(tmp_path):
    data = write_folders(tmp_path / "data", FOLDERS)
    shutil.copy(data / "train/dog/1.png", data / "train/cat/<script>x.png")
    assert run(data, tmp_path) == 0
    assert "<script>x.png" in Page(tmp_path / "page.html").text


def test_a_folder_in_place_of_the_page_is_said_before_anything_is_read(tmp_path, capsys, monkeypatch):
    write_folders(tmp_path / "colours", FOLDERS)
    monkeypatch.setattr("botformer.report.inspection.inspect_data", None)
    assert cli.main(["data", str(tmp_path / "colours"), "--out", str(tmp_path)]) == 2
    assert f"--out is the page, and {tmp_path} is a folder" in capsys.readouterr().err


def test_the_page_is_there_for_those_who_read_only_the_first_lines(tmp_path):
    write_folders(tmp_path / "colours", FOLDERS)
    command = [sys.executable, "-m", "botformer.cli", "data", "colours", "--out", "page.html"]
    reads, writes = os.pipe()
    os.close(reads)  # as `| true`
    with open(writes, "wb") as gone:
        done = subprocess.run(command, cwd=tmp_path, stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr.strip()) == (141, b"")
    assert (tmp_path / "page.html").is_file()


def test_the_page_does_not_replace_another_kind_of_file(colours, tmp_path, capsys):
    (tmp_path / "keep.json").write_text("{}")
    assert cli.main(["data", str(colours), "--fast", "--out", str(tmp_path / "keep.json")]) == 2
    assert "--out is the page, an .html file" in capsys.readouterr().err
    assert (tmp_path / "keep.json").read_text() == "{}"
