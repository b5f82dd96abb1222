"""Every row of the table of layouts is read as it says, in folders and, the same tree, in a tar."""

import io
import tarfile
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from botformer.data.classification.dataset import open_classification_datasets
from botformer.errors import InputError
from tests.data.classification.layout_examples import CLASSIFICATION_LAYOUTS
from tests.data.layout_row import Layout


def written(root: Path, tree: tuple[str, ...]) -> Path:
    """`tree` on the disk. The data set: `root`, or DATA.tar."""
    tars: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for entry in tree:
        tar, colon, path = entry.partition(".tar: ")
        path, _, text = (path if colon else entry).partition(" = ")
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, "JPEG")
        content = text.replace(",dog", "\ndog").encode() if text else buffer.getvalue()
        if colon:
            tars[f"{tar}.tar"].append((path, content))
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    for name, members in tars.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / name, "w") as tar:
            for path, content in members:
                info = tarfile.TarInfo(path)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return root / "DATA.tar" if "DATA.tar" in tars else root


def as_read(data: Path) -> str:
    try:
        train, validation = open_classification_datasets(str(data))
    except InputError as error:
        return f"refused: {error}"
    assert train.class_names == validation.class_names
    assert not {*map(train.name, range(len(train)))} & {*map(validation.name, range(len(validation)))}
    names = ", ".join(train.class_names)
    if "held-out" in validation.where:
        return f"{names}: {len(train) + len(validation)} images, a tenth of each class held out"
    return f"{names}: {len(train)} images to train on, {len(validation)} to validate on"


def assert_same(read: str, expected: str) -> None:
    if expected.startswith("refused: "):
        assert read.startswith("refused: ")
        assert expected.removeprefix("refused: ") in read
    else:
        assert read == expected


@pytest.mark.parametrize("row", CLASSIFICATION_LAYOUTS, ids=lambda row: f"{row.name}: {row.tree[0]}")
def test_a_layout_is_read_as_the_table_says(row: Layout, tmp_path: Path) -> None:
    assert_same(as_read(written(tmp_path, row.tree)), row.read_as)


@pytest.mark.parametrize(
    "row",
    [row for row in CLASSIFICATION_LAYOUTS if not any(".tar: " in entry or "=" in entry for entry in row.tree)],
    ids=lambda row: f"{row.name}: {row.tree[0]}",
)
def test_a_tree_in_a_tar_is_read_as_the_tree_is(row: Layout, tmp_path: Path) -> None:
    data = written(tmp_path, tuple(f"DATA.tar: {entry}" for entry in row.tree))
    assert_same(as_read(data), row.read_as)


def test_there_is_one_row_of_each_outcome() -> None:
    assert {row.read_as.startswith("refused: ") for row in CLASSIFICATION_LAYOUTS} == {True, False}
