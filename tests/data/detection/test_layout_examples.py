"""Every layout of the table is read, and what is not is refused with the list of those that are."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from botformer.data.detection.layouts import is_annotated, open_detection_dataset, open_detection_datasets
from botformer.errors import InputError
from tests.data.detection.layout_examples import BOX_XYXY, EXAMPLES, LAYOUTS, NOT_READ, Example
from tests.data.layout_row import Layout, markdown_table

pytest.importorskip("supervision")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_layout_gives_the_same_cats(example: Example, tmp_path: Path) -> None:
    example.write(tmp_path)
    assert is_annotated(str(tmp_path))
    train, validation = open_detection_datasets(str(tmp_path), example.keypoints)
    assert (len(train), len(validation)) == (example.train, example.validation)
    files = set()
    for dataset in (train, validation):
        assert [category.name for category in dataset.categories] == ["cat"]
        assert dataset.problems == ()
        for index in range(len(dataset)):
            record = dataset.image(index)
            (found,) = record.annotations
            assert found.box_xyxy == pytest.approx(BOX_XYXY, abs=1e-9)
            assert (found.label, found.crowd, found.segmentation is not None) == (1, False, example.shapes)
            assert found.area_px == pytest.approx(16 * 24)
            assert (record.width, record.height) == Image.open(dataset.folder / record.file).size == (64, 48)
            files.add((dataset.folder / record.file).resolve())
    assert ("held-out" in validation.where) == example.held_out
    assert len(files) == example.train + example.validation
    assert len(open_detection_dataset(str(tmp_path), "validation")) == example.validation


@pytest.mark.parametrize("row", NOT_READ, ids=lambda row: row.name)
def test_what_is_not_read_is_refused_with_what_is(row: Layout, tmp_path: Path) -> None:
    for name in row.tree:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"project": {}, "config": {}}')
    with pytest.raises(InputError, match=r"expected one of\n.*COCO.*\n(.*\n)*.*YOLO.*\n.*Pascal VOC.*\n.*LabelMe"):
        open_detection_datasets(str(tmp_path))
    assert not is_annotated(str(tmp_path))


def test_the_table_has_a_line_per_layout_and_its_files() -> None:
    table = markdown_table(LAYOUTS).splitlines()
    assert len(table) == len(LAYOUTS) + 2 == len({line.split("|")[1] for line in table})
    for row, line in zip(LAYOUTS, table[2:], strict=True):
        folders = {file.rpartition("/")[0] for file in row.tree}
        shown = re.findall("`([^`]+)`", line.split("|")[3])
        assert set(shown) <= set(row.tree)
        assert {file.rpartition("/")[0] for file in shown} == folders, "the first of each folder stands for the others"
    assert all(line.count("|") == 5 for line in table)


def test_the_description_itself_may_be_given(tmp_path: Path) -> None:
    """And so may the only annotation file, wherever one is."""
    rows = {example.name: example for example in EXAMPLES}
    rows["YOLO"].write(tmp_path / "yolo")
    shutil.move(tmp_path / "yolo/data.yaml", tmp_path / "yolo/cats.yaml")
    assert len(open_detection_datasets(str(tmp_path / "yolo/cats.yaml"))[0]) == 2
    assert len(open_detection_datasets(str(tmp_path / "yolo"))[0]) == 2
    rows["COCO, `result.json`"].write(tmp_path / "coco")
    assert len(open_detection_datasets(str(tmp_path / "coco/result.json"))[1]) == 1
