import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.labelme_reader import open_labelme
from botformer.errors import InputError
from tests.data.detection.layout_examples import BOX_XYXY, POLYGON, SIZE, labelme, labelme_shape


def write(root: Path, *shapes: dict[str, Any], image: str = "1.jpg", path: str = "", **more: Any) -> Path:
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE).save(root / image)
    file = (root / image).with_suffix(".json")
    file.write_text(labelme(path or Path(image).name, *shapes, **more), encoding="utf-8")
    return root


def only(source: DetectionDataset) -> Any:
    (found,) = source.image(0).annotations
    return found


def test_polygons_and_rectangles(tmp_path: Path) -> None:
    write(tmp_path, labelme_shape(), labelme_shape("rectangle", [[40, 36], [24, 12]]))
    polygon, box = open_labelme(tmp_path, tmp_path).image(0).annotations
    assert polygon.box_xyxy == box.box_xyxy == BOX_XYXY
    assert (polygon.segmentation, box.segmentation) == ([POLYGON], None)


def test_older_files_name_no_type(tmp_path: Path) -> None:
    shape = labelme_shape()
    del shape["shape_type"], shape["group_id"]
    assert only(open_labelme(write(tmp_path, shape), tmp_path)).segmentation == [POLYGON]


def test_a_circle_is_its_centre_and_a_point_of_it(tmp_path: Path) -> None:
    found = only(open_labelme(write(tmp_path, labelme_shape("circle", [[30, 24], [36, 16]])), tmp_path))
    assert found.box_xyxy == pytest.approx((20, 14, 40, 34))
    assert found.area_px == pytest.approx(math.pi * 100, rel=0.002)


def test_a_mask_is_an_image_in_its_box(tmp_path: Path) -> None:
    drawn = np.zeros((6, 5), dtype=bool)
    drawn[1:5, 1:4] = True
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    found = only(open_labelme(write(tmp_path, labelme_shape("mask", [[10, 20], [14, 25]], mask=text)), tmp_path))
    whole = np.zeros((48, 64), dtype=bool)
    whole[20:26, 10:15] = drawn
    assert found.box_xyxy == (11, 21, 14, 25)
    assert found.area_px == 12
    assert (coco_mask.decode(found.segmentation) == whole).all()


def test_parts_of_one_group_are_one_object(tmp_path: Path) -> None:
    left, right = [[2, 2], [10, 2], [10, 10]], [[20, 20], [30, 20], [30, 40]]
    write(
        tmp_path,
        labelme_shape(points=left, group_id=0),
        labelme_shape(points=left, label="dog", group_id=0),
        labelme_shape(points=right, group_id=0),
        labelme_shape(points=right),
    )
    source = open_labelme(tmp_path, tmp_path)
    joined, dog, alone = source.image(0).annotations
    assert joined.box_xyxy == (2, 2, 30, 40)
    assert len(joined.segmentation or ()) == 2
    assert [source.categories[found.label - 1].name for found in (joined, dog, alone)] == ["cat", "dog", "cat"]


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation"])
def test_turned_rectangles_of_labelme_and_of_x_anylabeling_are_shapes(tmp_path: Path, kind: str) -> None:
    corners = [[10, 2], [20, 12], [14, 18], [4, 8]]
    found = only(open_labelme(write(tmp_path, labelme_shape(kind, corners, direction=0.2)), tmp_path))
    assert found.box_xyxy == (4, 2, 20, 18)
    assert found.segmentation == [[10, 2, 20, 12, 14, 18, 4, 8]]


def test_points_and_lines_are_no_objects_and_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path,
        labelme_shape(),
        labelme_shape("point", [[1, 1]], label="eye"),
        labelme_shape("linestrip", label="road"),
        labelme_shape("linestrip"),
    )
    source = open_labelme(tmp_path, tmp_path)
    assert source.objects == 1
    assert [category.name for category in source.categories] == ["cat"]
    assert "shapes left out that are no objects: 2 linestrip, 1 point" in caplog.text


@pytest.mark.parametrize("path", ["1.jpg", "..\\photos\\1.jpg", "C:\\photos\\1.jpg", "../1.jpg", "gone.jpg", ""])
def test_the_path_of_the_image_on_another_machine(tmp_path: Path, path: str) -> None:
    (tmp_path / "images").mkdir()
    write(tmp_path, path=path or " ")
    (tmp_path / "1.jpg").rename(tmp_path / "images/1.jpg")
    assert open_labelme(tmp_path, tmp_path).name(0) == "images/1.jpg"


def test_sub_folders_and_what_has_no_partner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for image in ("1.jpg", "deep/1.jpg", "deep/2.jpg"):
        write(tmp_path, image=image)
    (tmp_path / "deep/2.json").unlink()
    (tmp_path / "gone.json").write_text(labelme("gone.jpg"))
    (tmp_path / "package.json").write_text("{}")
    source = open_labelme(tmp_path, tmp_path)
    assert [source.name(index) for index in range(2)] == ["1.jpg", "deep/1.jpg"]
    assert len(source) == 2
    assert "1 images have no LabelMe file and are left out, such as deep/2.jpg" in caplog.text
    assert "1 LabelMe files have no image of their own and are left out, such as gone.json" in caplog.text
    assert "package.json is not of LabelMe" in caplog.text


def test_objects_of_a_resized_image_are_scaled_with_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, labelme_shape(), imageWidth=2 * SIZE[0], imageHeight=2 * SIZE[1])
    found = only(open_labelme(tmp_path, tmp_path))
    assert found.box_xyxy == pytest.approx([side / 2 for side in BOX_XYXY])
    assert found.segmentation == [pytest.approx([side / 2 for side in POLYGON])]
    assert "1 images were resized after they were annotated: their objects are scaled with them" in caplog.text


def test_sizes_that_their_objects_disprove_are_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, labelme_shape(), imageWidth=30, imageHeight=30)
    write(tmp_path, labelme_shape(points=[[1, 2], [3, 2], [3, 4]]), image="2.jpg", imageWidth=30, imageHeight=30)
    source = open_labelme(tmp_path, tmp_path)
    assert source.image(0).annotations[0].box_xyxy == pytest.approx(BOX_XYXY)
    assert source.image(1).annotations[0].box_xyxy == pytest.approx((1, 2, 3, 4))
    assert "1 files have objects far beyond the size that they say: no size there is believed" in caplog.text


def test_of_an_image_that_was_stretched_since_nothing_is_read(tmp_path: Path) -> None:
    write(tmp_path, labelme_shape(), labelme_shape(), imageWidth=128)
    write(tmp_path, labelme_shape(), image="2.jpg")
    source = open_labelme(tmp_path, tmp_path)
    (problem,) = source.problems
    assert "of an image of 128x48 pixels, this one has 64x48: it was turned, cut or stretched since" in problem.reason
    assert (len(source), source.objects_left_out) == (1, 2)


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        (labelme_shape(points=[[1, 1], [2, 2]]), "a polygon of 2 points"),
        (labelme_shape(points=[[1, 1], [2, 2], [3, "x"]]), "not pairs of finite numbers"),
        (labelme_shape(points=[1, 2, 3, 4, 5, 6]), "not pairs of finite numbers"),
        (labelme_shape("circle", [[1, 1]]), "a circle of 1 points"),
        (labelme_shape("mask", [[1, 1], [2, 2]], mask="????"), "a mask that cannot be read"),
    ],
)
def test_a_bad_shape_is_skipped_and_named(tmp_path: Path, shape: dict[str, Any], what: str) -> None:
    write(tmp_path, labelme_shape(), shape)
    source = open_labelme(tmp_path, tmp_path)
    assert source.objects == 1
    (problem,) = source.problems
    assert what in problem.reason
    with pytest.raises(InputError, match=r"1\.jpg"):
        open_labelme(tmp_path, tmp_path, max_bad_records=0)


def test_image_data_is_not_needed_and_a_broken_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, imageData="x" * 1000)
    (tmp_path / "2.json").write_text(json.dumps({"shapes": []})[:-1])
    assert "not JSON" in open_labelme(tmp_path, tmp_path).problems[0].reason
