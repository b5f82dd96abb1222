import logging
import os
import pickle
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from botformer.data.classification.class_names import natural_order
from botformer.data.classification.dataset import (
    ClassificationDataset,
    open_classification_dataset,
    open_classification_datasets,
)
from botformer.data.image_io import decode
from botformer.errors import InputError
from tests.data.classification.folders import write_folder, write_tar


def contents(dataset: ClassificationDataset) -> list[tuple[str, str, bytes]]:
    """(name, class, bytes) of every image."""
    found = []
    for index in range(len(dataset)):
        file, label = dataset.read(index)
        with file:
            found.append((dataset.name(index), dataset.class_names[label], file.read()))
    return found


def on_disk(root: Path) -> list[tuple[str, str, bytes]]:
    return sorted(
        (f"{path.parent.name}/{path.name}", path.parent.name, path.read_bytes()) for path in root.glob("*/*.png")
    )


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "set" / "train", {"cat": 3, "dog": 4, "emu": 2})
    write_folder(tmp_path / "set" / "validation", {"cat": 1, "dog": 2, "emu": 1})
    return tmp_path / "set"


def test_folder_gives_every_file_with_the_class_of_its_folder(split_folder: Path) -> None:
    train, validation = open_classification_datasets(str(split_folder))
    assert train.class_names == validation.class_names == ("cat", "dog", "emu")
    assert contents(train) == on_disk(split_folder / "train")
    assert contents(validation) == on_disk(split_folder / "validation")


@pytest.mark.parametrize("name", ["val", "valid", "dev", "test"])
def test_other_names_of_the_validation_split(split_folder: Path, name: str) -> None:
    (split_folder / "validation").rename(split_folder / name)
    assert len(open_classification_datasets(str(split_folder))[1]) == 4


def test_a_class_spans_the_folders_below_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "cat", {"indoors": 2, "outdoors": 2})
    write_folder(tmp_path / "dog", {"garden": 2, "street": 2})
    dataset = open_classification_dataset(str(tmp_path))
    assert dataset.class_names == ("cat", "dog")
    assert all(name.startswith(label) for name, label, _ in contents(dataset))


def test_classes_are_in_natural_order_also_where_they_differ_in_case(tmp_path: Path) -> None:
    write_folder(tmp_path, dict.fromkeys(["10", "2", "b", "B", "a"], 1))
    assert open_classification_dataset(str(tmp_path)).class_names == ("2", "10", "a", "B", "b")


def test_the_order_is_timm_s_and_digits_that_are_no_numbers_have_one_too() -> None:
    from timm.utils.misc import natural_key

    names = ["n02", "n1", "a10b2", "a10B1", "a9", "10", "9", "٣", "２", "É", "e", "_", "Z", ""]
    assert natural_order(names) == tuple(sorted(names, key=lambda name: (natural_key(name), name)))
    assert natural_order(["②", "①", "5²", "5"]) == ("5", "5²", "①", "②")


@pytest.mark.parametrize(
    "tops",
    [("images", "masks"), ("JPEGImages", "SegmentationClass", "SegmentationObject"), ("Images", "test_images")],
)
@pytest.mark.parametrize("split", ["", "train/"])
def test_images_beside_masks_are_no_classes(tmp_path: Path, tops: tuple[str, ...], split: str) -> None:
    write_folder(tmp_path / split, dict.fromkeys(tops, 4))
    if split:
        write_folder(tmp_path / "val", dict.fromkeys(tops, 2))
    with pytest.raises(InputError, match=r"look like images beside their masks .* COCO's run lengths"):
        open_classification_datasets(str(tmp_path))


def test_numbers_longer_than_python_reads_have_an_order() -> None:
    assert natural_order(["9" * 5000, "10", "2"]) == ("2", "10", "9" * 5000)


def test_names_that_are_not_ascii_and_symbolic_links(tmp_path: Path) -> None:
    write_folder(tmp_path / "elsewhere", {"x": 2})
    write_folder(tmp_path / "set", {"größe": 2, "猫": 2})
    (tmp_path / "set" / "ссылка").symlink_to(tmp_path / "elsewhere" / "x", target_is_directory=True)
    (tmp_path / "set" / "猫" / "link.png").symlink_to(tmp_path / "elsewhere" / "x" / "00.png")
    dataset = open_classification_dataset(str(tmp_path / "set"))
    assert Counter(label for _, label, _ in contents(dataset)) == {"größe": 2, "猫": 3, "ссылка": 2}


def test_files_of_operating_systems_are_not_images(split_folder: Path) -> None:
    before = contents(open_classification_datasets(str(split_folder))[0])
    for name in ("cat/._00.png", "cat/.thumb/00.png", ".cache/00.png", "__MACOSX/cat/00.png", "cat/notes.txt"):
        (split_folder / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (split_folder / "train" / name).write_bytes(b"?")
    assert contents(open_classification_datasets(str(split_folder))[0]) == before


def test_images_outside_the_class_folders_are_reported(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(split_folder / "train/cat/00.png", split_folder / "train/overview.png")
    train, _ = open_classification_datasets(str(split_folder))
    assert contents(train) == on_disk(split_folder / "train")
    assert "1 images outside the class folders are left out, such as overview.png" in caplog.text


def test_what_is_left_out_is_counted_by_ending(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In a folder and in a tar: 8 of 18 files are images."""
    folder = write_folder(tmp_path / "set", {"cat": 4, "dog": 1})
    for name in ("a.JFIF", "b.jpe", "c.mpo"):
        Image.new("RGB", (2, 2)).save(folder / "dog" / name, "JPEG")
    for name in ("1.heic", "2.HEIC", "3.heic", "4.heic", "5.heic", "6.jp2", "7.txt", "8.txt", "9.txt", "noending"):
        (folder / "dog" / name).write_bytes(b"?")
    for data in (folder, write_tar(tmp_path / "set.tar", folder)):
        caplog.clear()
        dataset = open_classification_dataset(str(data))
        assert Counter(label for _, label, _ in contents(dataset)) == {"cat": 4, "dog": 4}
        assert (
            "10 files are left out because of their endings: 5 .heic, 3 .txt, 1 .jp2, 1 without an ending."
            in caplog.text
        )
    for index in range(len(dataset)):
        decode(dataset.read(index)[0], dataset.name(index))


def test_thumbnails_of_network_storage_are_no_images(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = contents(open_classification_datasets(str(split_folder))[0])
    for name in ("cat/@eaDir/00.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/x.jpg", "cat/.AppleDouble/00.png", "cat/Thumbs.db",
                 "#recycle/00.png", "dog/.@__thumb/s100.jpg", "cat/desktop.ini"):  # fmt: skip
        (split_folder / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (split_folder / "train" / name).write_bytes(b"?")
    assert contents(open_classification_datasets(str(split_folder))[0]) == before
    assert "left out" not in caplog.text


def test_the_classes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, {f"c{number}": 1 for number in range(12)}, size=(1, 1))
    with caplog.at_level(logging.INFO, "botformer.data"):
        open_classification_dataset(str(tmp_path))
    assert "12 images of 12 classes: c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more" in caplog.text


def test_taking_the_test_split_to_validate_on_is_said(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (split_folder / "validation").rename(split_folder / "Test")
    open_classification_datasets(str(split_folder))
    assert "has no validation split, so Test is taken to validate on" in caplog.text
    caplog.clear()
    open_classification_dataset(str(split_folder), "validation")
    assert "has no validation split, so Test is taken to validate on" in caplog.text
    caplog.clear()
    assert len(open_classification_dataset(str(split_folder), "test")) == 4  # asked for by name
    assert "validate on" not in caplog.text


def test_links_to_folders_above_are_not_followed(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One link to a parent was followed forty times; of two the reading would not end."""
    train = split_folder / "train"
    before = contents(open_classification_datasets(str(split_folder))[0])
    (train / "cat" / "up").symlink_to(train)
    (train / "cat" / "self").symlink_to(train / "cat")
    (train / "dog" / "up").symlink_to("..")
    (train / "dog" / "top").symlink_to(split_folder)
    (train / "all").symlink_to(".")
    assert contents(open_classification_datasets(str(split_folder))[0]) == before
    assert (
        "5 links to folders that are read already, or that contain the link, are not followed: cat/self" in caplog.text
    )


def test_a_real_folder_is_read_once_per_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path / "cat", {"z": 2})
    write_folder(tmp_path, {"dog": 2, "emu": 1})
    (tmp_path / "cat" / "a").symlink_to("z")  # before the real one in the alphabet
    (tmp_path / "cat" / "friends").symlink_to(tmp_path / "dog")
    dataset = open_classification_dataset(str(tmp_path))
    assert [name for name, _, _ in contents(dataset)] == [
        "cat/friends/00.png", "cat/friends/01.png", "cat/z/00.png", "cat/z/01.png",
        "dog/00.png", "dog/01.png", "emu/00.png",
    ]  # fmt: skip
    assert "1 links to folders that are read already, or that contain the link, are not followed: cat/a" in caplog.text
    assert "1 folders are links to those of another class: their images count for both: dog" in caplog.text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_opened(split_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(split_folder / "train" / "cat" / "camera.jpg")
    assert len(open_classification_datasets(str(split_folder))[0]) == 9
    assert "1 pipes, sockets or devices are left out: cat/camera.jpg" in caplog.text


def test_names_that_are_not_utf_8(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder's name becomes one that every file and screen can hold; a file's name still opens the file."""
    folder = write_folder(tmp_path / "set", {"cat": 2, "dog": 2})
    (folder / "dog").rename(folder / os.fsdecode(b"gr\xf6\xdfe"))
    (folder / "cat" / "00.png").rename(folder / "cat" / os.fsdecode(b"\xe4.png"))
    for data in (folder, write_tar(tmp_path / "set.tar", folder)):
        caplog.clear()
        dataset = open_classification_dataset(str(data))
        assert dataset.class_names == ("cat", r"gr\xf6\xdfe")
        assert [os.fsencode(name) for name, _, _ in contents(dataset)][1] == b"cat/\xe4.png"
        assert r"the name of the folder gr\xf6\xdfe is not UTF-8" in caplog.text


# Held out


def test_a_tenth_of_every_class_is_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, {"cat": 40, "dog": 20, "emu": 3, "fox": 1}, size=(1, 1))
    with caplog.at_level(logging.INFO, "botformer.data"):
        train, validation = open_classification_datasets(str(tmp_path))
    assert "7 of 64 images, a tenth of every class by a hash of the names, are held out" in caplog.text
    assert Counter(label for _, label, _ in contents(validation)) == {"cat": 4, "dog": 2, "emu": 1}
    assert sorted(contents(train) + contents(validation)) == on_disk(tmp_path)
    assert train.class_names == validation.class_names == ("cat", "dog", "emu", "fox")


def test_one_image_per_class_leaves_none_to_validate_on(tmp_path: Path) -> None:
    for name in ("cat", "cow", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    with pytest.raises(InputError, match="no class has two of the 3 images.*add images, two per class"):
        open_classification_datasets(str(tmp_path))


def test_the_held_out_tenth_depends_on_the_names_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", {"cat": 30, "dog": 30}, size=(1, 1))
    first = [name for name, _, _ in contents(open_classification_datasets(str(tmp_path / "a"))[1])]
    (tmp_path / "b").mkdir()
    for label in ("dog", "cat"):  # written anew, in another order, elsewhere
        (tmp_path / "b" / label).mkdir()
        for path in sorted((tmp_path / "a" / label).iterdir(), reverse=True):
            shutil.copy(path, tmp_path / "b" / label / path.name)
    again = [name for name, _, _ in contents(open_classification_datasets(str(tmp_path / "b"))[1])]
    assert first == again
    assert first != sorted(first)[:3] + sorted(first)[3:][::-1]
    assert {name[-6:-4] for name in first} != {"00", "01", "02"}  # not simply the first files


def test_classes_of_the_validation_images_may_be_fewer_and_spelt_in_another_way(
    split_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(split_folder / "validation" / "emu")
    (split_folder / "validation" / "dog").rename(split_folder / "validation" / "Dog")
    train, validation = open_classification_datasets(str(split_folder))
    assert train.class_names == validation.class_names == ("cat", "dog", "emu")
    assert validation.labels.tolist() == [1, 1, 0]  # Dog/00.png, Dog/01.png, cat/00.png
    assert "has no images of 1 of the 3 classes" in caplog.text
    assert "Dog is dog" in caplog.text


# Tars


def test_samples_without_a_label_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_folder(tmp_path / "x", {"flat": 4})
    for number, label in enumerate(("1", "007", "7")):
        (folder / "flat" / f"0{number}.cls").write_text(f"{label}\n")
    Image.new("RGB", (2, 2)).save(folder / "flat" / "00.mask.png")
    dataset = open_classification_dataset(str(write_tar(tmp_path / "0.tar", folder / "flat")))
    assert [(name, label) for name, label, _ in contents(dataset)] == [
        ("00.png", "1"),
        ("01.png", "7"),
        ("02.png", "7"),
    ]
    assert "2 images are left out: they have no .cls file, or are the second image of one" in caplog.text
    (folder / "flat" / "02.cls").write_bytes(b"\x80\x02K\x01.")  # a pickle
    with pytest.raises(InputError, match=r"02\.cls is not a label: it holds .*expected the number or the name"):
        open_classification_dataset(str(write_tar(tmp_path / "0.tar", folder / "flat")))


def test_hard_links_in_a_tar_are_files_and_symbolic_ones_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_folder(tmp_path / "set", {"cat": 1, "dog": 1})
    os.link(folder / "cat" / "00.png", folder / "cat" / "01.png")
    (folder / "dog" / "02.png").symlink_to("00.png")
    dataset = open_classification_dataset(str(write_tar(tmp_path / "set.tar", folder)))
    assert [name for name, _, _ in contents(dataset)] == ["cat/00.png", "cat/01.png", "dog/00.png"]
    assert contents(dataset)[0][2] == contents(dataset)[1][2]
    assert "1 .link" in caplog.text


def test_tars_hold_what_the_folders_held(split_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        write_tar(tmp_path / f"{split}.tar", split_folder / split)
    train, validation = open_classification_datasets(str(tmp_path))
    assert train.class_names == ("cat", "dog", "emu")
    assert contents(train) == on_disk(split_folder / "train")
    assert contents(validation) == on_disk(split_folder / "validation")
    assert contents(pickle.loads(pickle.dumps(train))) == contents(train)


def test_a_folder_of_tars_with_one_tar_per_class(split_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tars" / "train").mkdir(parents=True)
    for label in ("cat", "dog", "emu"):
        write_tar(tmp_path / "tars" / "train" / f"{label}.tar", split_folder / "train" / label)
    dataset = open_classification_dataset(str(tmp_path / "tars"), "train")
    expected = [
        (f"{label}.tar/{name.split('/')[1]}", label, data) for name, label, data in on_disk(split_folder / "train")
    ]
    assert contents(dataset) == expected


def test_a_folder_of_shards_with_classes_inside(split_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    write_tar(tmp_path / "shards" / "0.tar", split_folder / "train")
    write_tar(tmp_path / "shards" / "1.tar", split_folder / "validation")
    dataset = open_classification_dataset(str(tmp_path / "shards"))
    assert Counter(label for _, label, _ in contents(dataset)) == {"cat": 4, "dog": 6, "emu": 3}


def test_a_tar_of_tars(split_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for label in ("cat", "dog", "emu"):
        write_tar(tmp_path / "inner" / f"{label}.tar", split_folder / "train" / label)
    dataset = open_classification_dataset(str(write_tar(tmp_path / "all.tar", tmp_path / "inner")))
    assert [(label, data) for _, label, data in contents(dataset)] == [
        (label, data) for _, label, data in on_disk(split_folder / "train")
    ]


class Touch:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_no_pickle_is_read_or_written_beside_tars(
    split_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tmp_path / "tars" / "train"
    train.mkdir(parents=True)
    write_tar(train / "0.tar", split_folder / "train")
    (train / "_train_tarinfos.pickle").write_bytes(pickle.dumps(Touch(tmp_path / "was_run")))
    monkeypatch.setattr(os.path, "getsize", lambda path: 20 * 1024**3)  # so large that timm would keep a cache
    assert len(open_classification_dataset(str(tmp_path / "tars"), "train")) == 9
    assert not (tmp_path / "was_run").exists()
    (train / "_train_tarinfos.pickle").unlink()
    open_classification_dataset(str(tmp_path / "tars"), "train")
    assert [path.name for path in train.iterdir()] == ["0.tar"]


def test_a_tar_that_cannot_be_listed(split_folder: Path, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "train.tar", split_folder / "train")
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as zipped:
        zipped.add(split_folder / "train", "train")
    with pytest.raises(InputError, match=r"zipped\.tar: not a whole tar, or compressed"):
        open_classification_dataset(str(tmp_path / "zipped.tar"))
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"train\.tar: not a whole tar(.|\n)*if they were cut off"):
        open_classification_dataset(str(tar))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty\.tar: no images"):
        open_classification_dataset(str(write_tar(tmp_path / "empty.tar", tmp_path / "empty")))


# Hub data sets


@pytest.fixture
def hub_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """A local folder of Parquet files, as the hub serves them, and the images inside."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = write_folder(tmp_path / "images", {"cat": 12, "dog": 12})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    for split, chosen in (("train", slice(0, 8)), ("test", slice(8, 12))):
        paths = [path for label in ("cat", "dog") for path in sorted((folder / label).iterdir())[chosen]]
        rows = [
            {"image": {"bytes": path.read_bytes(), "path": None}, "label": ["dog", "cat"].index(path.parent.name)}
            for path in paths
        ]
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(
            tmp_path / "hub" / "data" / f"{split}-00000-of-00001.parquet"
        )
    return f"hfds/{tmp_path / 'hub'}", folder


def test_hub_data_set_gives_bytes_and_class_names(hub_data_set: tuple[str, Path]) -> None:
    data, folder = hub_data_set
    train, validation = open_classification_datasets(data)
    assert (len(train), len(validation)) == (16, 8)
    assert train.class_names == validation.class_names == ("dog", "cat")
    expected = [(label, data) for _, label, data in on_disk(folder)]
    assert [(label, data) for _, label, data in contents(train)] == expected[:8] + expected[12:20]
    assert [(label, data) for _, label, data in contents(validation)] == expected[8:12] + expected[20:]
    assert (train.name(3), validation.name(0)) == ("train[3]", "test[0]")
    assert contents(pickle.loads(pickle.dumps(train))) == contents(train)


def test_hub_data_set_without_validation_holds_a_tenth_out(hub_data_set: tuple[str, Path]) -> None:
    data, _ = hub_data_set
    (Path(data.removeprefix("hfds/")) / "data" / "test-00000-of-00001.parquet").unlink()
    train, validation = open_classification_datasets(data)
    assert (len(train), len(validation)) == (14, 2)


def test_hub_data_set_that_cannot_be_opened(hub_data_set: tuple[str, Path]) -> None:
    data, _ = hub_data_set
    with pytest.raises(InputError, match=r"split 'night', cannot be opened .*night"):
        open_classification_dataset(data, "night")
    with pytest.raises(InputError, match=r"hfds/nobody/nothing, split 'train', cannot be opened"):
        open_classification_datasets("hfds/nobody/nothing")


# Messages


def test_the_message_for_a_missing_folder_lists_the_layouts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)nowhere does not exist; expected one of\n  DIR/train/CLASS") as caught:
        open_classification_datasets(str(tmp_path / "nowhere"))
    assert "hfds/OWNER/NAME" in str(caught.value)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no class folders; found there: nothing; expected one of"):
        open_classification_datasets(str(tmp_path))


def test_folder_of_loose_images(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"has no class folders; found there: a\.png"):
        open_classification_datasets(str(tmp_path))


def test_a_file_that_is_not_a_tar(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"data\.zip is a file, not a folder or a \.tar \(unpack"):
        open_classification_datasets(str(tmp_path / "data.zip"))


def test_class_folder_without_images(split_folder: Path) -> None:
    (split_folder / "train" / "gnu").mkdir()
    with pytest.raises(InputError, match=r"train: no images \(\.jpg .* in the class folder gnu; fill or remove"):
        open_classification_datasets(str(split_folder))


def test_one_class(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 5})
    with pytest.raises(InputError, match=r"all 5 images of .* are of one class, 'cat'"):
        open_classification_datasets(str(tmp_path))


def test_a_part_of_the_classes_is_enough_to_measure_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 5, "dog": 5})
    write_folder(tmp_path / "val", {"dog": 2})
    _, validation = open_classification_datasets(str(tmp_path))
    assert (validation.class_names, validation.labels.tolist()) == (("cat", "dog"), [1, 1])
    assert len(open_classification_dataset(str(tmp_path / "val"))) == 2


def test_a_table_beside_the_images_is_said_not_to_be_read(tmp_path: Path) -> None:
    write_folder(tmp_path, {"images": 5})
    (tmp_path / "labels.csv").write_text("file,class\n")
    with pytest.raises(
        InputError, match=r"'other'\. labels\.csv is a table, which is not read: sort the images into a f"
    ):
        open_classification_datasets(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("00.txt", "YOLO's label files need the names of the classes: write them into classes.txt"),
        ("README.txt", "Masks as images are not read"),
        ("1.xml", "The .json or .xml files there are not of COCO, LabelMe, Pascal VOC, VIA or Label Studio"),
        ("1.png", "Masks as images are not read"),
    ],
)
def test_images_beside_labels_of_objects_are_not_classes(tmp_path: Path, name: str, advice: str) -> None:
    write_folder(tmp_path, {"images": 3})
    (tmp_path / "labels").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "labels" / name, format="PNG")
    with pytest.raises(InputError, match=rf"look like images beside their masks or annotations.*{re.escape(advice)}"):
        open_classification_datasets(str(tmp_path))


def test_train_without_validation(split_folder: Path) -> None:
    (split_folder / "validation").rename(split_folder / "vald")
    with pytest.raises(InputError, match=r"nothing to validate on; found there: train, vald\. Add .*validation"):
        open_classification_datasets(str(split_folder))
    train, validation = open_classification_datasets(str(split_folder / "train"))  # what the message proposes
    assert (len(train), len(validation)) == (6, 3)


def test_classes_that_differ_are_named(split_folder: Path) -> None:
    write_folder(split_folder / "train", {"fox": 1})
    write_folder(split_folder / "validation", {"gnu": 1, "hen": 1})
    with pytest.raises(InputError, match=r"2 of 5 classes .* not among the 4 .*: gnu, hen\. Rename"):
        open_classification_datasets(str(split_folder))


def test_a_single_split(split_folder: Path) -> None:
    write_folder(split_folder / "night", {"cat": 1, "dog": 1})
    assert len(open_classification_dataset(str(split_folder), "night")) == 2
    (split_folder / "validation").rename(split_folder / "val")
    assert len(open_classification_dataset(str(split_folder), "validation")) == 4
    assert len(open_classification_dataset(str(split_folder / "train"))) == 9
    with pytest.raises(InputError, match=r"no split 'day': neither .* found there: night, train, val"):
        open_classification_dataset(str(split_folder), "day")


def test_a_single_split_that_is_held_out(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 10, "dog": 10})
    train, validation = open_classification_datasets(str(tmp_path))
    assert contents(open_classification_dataset(str(tmp_path), "train")) == contents(train)
    assert contents(open_classification_dataset(str(tmp_path), "validation")) == contents(validation)


def test_a_link_to_nowhere_is_listed_and_fails_when_read(split_folder: Path) -> None:
    (split_folder / "train/cat/zz.png").symlink_to(split_folder / "gone.png")
    train, _ = open_classification_datasets(str(split_folder))
    index = [train.name(i) for i in range(len(train))].index("cat/zz.png")
    with pytest.raises(FileNotFoundError):
        train.read(index)


def test_what_is_read_can_be_decoded(split_folder: Path) -> None:
    train, _ = open_classification_datasets(str(split_folder))
    file, _ = train.read(0)
    with file:
        assert decode(file, train.name(0)).size == (12, 10)


@pytest.mark.timeout(60)  # reading a pipe waits for ever
@pytest.mark.parametrize(
    "name", ["link", "link.tar", "train/link", "train/cat/link.tar", "train/cat/pipe.png", "pipe.tar"]
)
def test_links_in_a_circle_and_pipes_are_left_out(tmp_path, name):
    for split, numbers in (("train", "12"), ("validation", "3")):
        for kind in ("cat", "dog"):
            (tmp_path / split / kind).mkdir(parents=True)
            for number in numbers:
                Image.new("RGB", (4, 4)).save(tmp_path / split / kind / f"{number}.png")
    odd = tmp_path / name
    os.mkfifo(odd) if "pipe" in name else odd.symlink_to(odd.name)
    train, validation = open_classification_datasets(str(tmp_path))
    assert (len(train), len(validation)) == (4, 2)
