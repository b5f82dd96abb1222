"""Folders of Parquet files, as the hub serves them and as people write them."""

import io
import pickle
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from botformer.data.classification.batches import training_batches
from botformer.data.classification.dataset import open_classification_dataset, open_classification_datasets
from botformer.errors import InputError
from botformer.recipes.schema import Images
from tests.data.classification.folders import write_folder

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

IMAGES = Images(size=8, augmentation="none", max_bad_files=3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, numbers: Iterable[int], labels: Any = ("cat", "dog"), rows_per_group: int = 4) -> Path:
    """Images by their numbers; the classes take turns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = list(numbers)
    content = {"image": [png(number) for number in numbers], "label": [labels[number % 2] for number in numbers]}
    parquet.write_table(pyarrow.table(content), path, row_group_size=rows_per_group)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files to train on, of five row groups together, and one to validate on."""
    write(tmp_path / "set" / "train-0.parquet", range(9))
    write(tmp_path / "set" / "train-1.parquet", range(9, 17))
    write(tmp_path / "set" / "validation-0.parquet", range(17, 21))
    assert parquet.ParquetFile(tmp_path / "set" / "train-0.parquet").num_row_groups == 3
    return tmp_path / "set"


def test_rows_of_every_file_and_row_group_with_classes_by_name(folder: Path) -> None:
    for data in (str(folder), f"hfds/{folder}"):
        train, validation = open_classification_datasets(data)
        assert train.class_names == validation.class_names == ("cat", "dog")
        assert [train.read(index)[0].read() for index in range(len(train))] == [png(number) for number in range(17)]
        assert train.labels.tolist() == [number % 2 for number in range(17)]
        assert [validation.read(index)[0].read() for index in range(4)] == [png(number) for number in range(17, 21)]
        assert validation.labels.tolist() == [1, 0, 1, 0]
    assert len(open_classification_dataset(str(folder), "validation")) == 4


@pytest.mark.parametrize("labels", [(0, 1), ("1", "0")])
def test_numbers_without_names_are_names(tmp_path: Path, labels: Any) -> None:
    write(tmp_path / "set" / "train" / "0.parquet", range(6), labels)
    write(tmp_path / "set" / "val" / "0.parquet", range(6, 8), labels)
    train, validation = open_classification_datasets(str(tmp_path / "set"))
    assert train.class_names == ("0", "1")
    assert train.labels.tolist() == [int(labels[number % 2]) for number in range(6)]
    assert len(validation) == 2


def test_a_single_split_needs_no_name(tmp_path: Path, folder: Path) -> None:
    write(tmp_path / "alone" / "test.parquet", range(6))
    assert len(open_classification_dataset(str(tmp_path / "alone"), "")) == 6
    with pytest.raises(InputError, match="has the splits train, validation; name one with --split"):
        open_classification_dataset(str(folder), "")


def test_batches_depend_on_seed_and_step_alone(folder: Path) -> None:
    """With worker processes, of which each opens the files for itself, from the middle, and in halves."""
    train, _ = open_classification_datasets(str(folder))

    def batches(start: int = 0, workers: int = 0, **shard: int) -> list[Any]:
        return list(islice(training_batches(train, IMAGES, 4, 5, workers, **shard).starting_at(start), 8 - start))

    whole = batches()
    assert [name for batch in whole[:4] for name in batch["files"]] != [
        name for batch in whole[4:] for name in batch["files"]
    ]
    halves = [
        {"images": batch["images"][rank::2], "files": batch["files"][rank::2]} for rank in range(2) for batch in whole
    ]
    for got, expected in (
        (batches(workers=2), whole),
        (batches(rank=0, world=2) + batches(rank=1, world=2), halves),
        (batches(3), whole[3:]),
    ):
        for one, other in zip(got, expected, strict=True):
            assert one["files"] == other["files"]
            assert torch.equal(one["images"], other["images"])
    for batch in whole:
        for name, image in zip(batch["files"], batch["images"], strict=True):
            pixels = np.array(Image.open(io.BytesIO(png(int(name.removeprefix("train[").removesuffix("]"))))))
            assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))
    assert len(pickle.loads(pickle.dumps(train))) == 17


def test_broken_files_are_named_all_of_them(folder: Path) -> None:
    good = (folder / "train-0.parquet").read_bytes()
    (folder / "train-1.parquet").write_bytes(good[: len(good) // 2])
    (folder / "train-2.parquet").write_bytes(good[:200] + bytes(1500) + good[1700:])
    (folder / "train-3.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="3 Parquet files cannot be read") as caught:
        open_classification_datasets(str(folder))
    assert [f"train-{number}.parquet" in str(caught.value) for number in range(4)] == [False, True, True, True]


def test_images_that_cannot_be_decoded_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [png(0)[:90], b"", None, *map(png, range(3, 8))]
    table = pyarrow.table({"image": pyarrow.array(images, pyarrow.binary()), "label": ["cat", "dog"] * 4})
    for name in ("train-0.parquet", "train-1.parquet"):
        (folder / name).unlink()
    parquet.write_table(table, folder / "train-0.parquet")
    train, _ = open_classification_datasets(str(folder))
    loader = training_batches(train, IMAGES, 8, seed=0, workers=0)
    next(loader.starting_at(0))
    assert set(loader.bad) == {"train[0]", "train[1]", "train[2]"}
    assert loader.bad["train[2]"] == "the row has no image"


def test_what_is_missing_is_said(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "odd").mkdir()
    parquet.write_table(pyarrow.table({"img": [b"x"], "fine_label": [1]}), tmp_path / "odd" / "train.parquet")
    with pytest.raises(InputError, match="has the columns fine_label, img; expected are columns image .* and label"):
        open_classification_datasets(str(tmp_path / "odd"))
    parquet.write_table(pyarrow.table({"image": [1.5], "label": [1]}), tmp_path / "odd" / "train.parquet")
    with pytest.raises(InputError, match="column image is of type .*float64.* expected are columns image"):
        open_classification_datasets(str(tmp_path / "odd"))
    write(tmp_path / "odd" / "train.parquet", range(4), labels=("cat", None))
    with pytest.raises(InputError, match="has 2 images without a label"):
        open_classification_datasets(str(tmp_path / "odd"))
    with pytest.raises(InputError, match=r"train-0\.parquet is a file; give its folder, .*set: all Parquet files"):
        open_classification_datasets(str(folder / "train-0.parquet"))


def test_a_table_beside_class_folders_describes_them(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "photos", {"cat": 3, "dog": 3})
    write(root / "metadata.parquet", range(4))
    write(root / "cat" / "metadata.parquet", range(4))
    assert len(open_classification_dataset(str(root))) == 6
