import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import open_detection_dataset
from botformer.errors import InputError
from tests.data.detection.layout_examples import BOX_XYXY, POLYGON, SIZE, via, via_region


def read(root: Path, *regions: Any, **more: Any) -> DetectionDataset:
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", SIZE).save(root / name)
    content = via(["1.jpg", "2.jpg"], lambda: list(regions))
    (root / "via_region_data.json").write_text(json.dumps(content | more))
    return open_detection_dataset(str(root), "")


def test_boxes_and_shapes(tmp_path: Path) -> None:
    source = read(
        tmp_path,
        via_region(),
        via_region({"name": "rect", "x": 24, "y": 12, "width": 16, "height": 24}),
        via_region({"name": "circle", "cx": 30, "cy": 24, "r": 10}),
        via_region({"name": "ellipse", "cx": 30, "cy": 24, "rx": 20, "ry": 10, "theta": math.pi / 2}),
    )
    polygon, box, circle, ellipse = source.image(0).annotations
    assert polygon.box_xyxy == box.box_xyxy == BOX_XYXY
    assert (polygon.segmentation, box.segmentation) == ([POLYGON], None)
    assert circle.box_xyxy == pytest.approx((20, 14, 40, 34))
    assert circle.area_px == pytest.approx(math.pi * 100, rel=0.002)
    assert ellipse.box_xyxy == pytest.approx((20, 4, 40, 44))


def test_points_and_lines_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = read(tmp_path, via_region(), via_region({"name": "point", "cx": 3, "cy": 4}))
    assert source.objects == 2
    assert "regions left out that are no objects: 2 point" in caplog.text


def test_version_1_has_an_object_of_regions_and_may_name_no_class(tmp_path: Path) -> None:
    bare = {"shape_attributes": via_region()["shape_attributes"], "region_attributes": {}}
    Image.new("RGB", SIZE).save(tmp_path / "1.jpg")
    content = {"1.jpg123": {"filename": "1.jpg", "size": 123, "regions": {"0": bare}, "file_attributes": {}}}
    (tmp_path / "via_region_data.json").write_text(json.dumps(content))
    source = open_detection_dataset(str(tmp_path), "")
    assert [category.name for category in source.categories] == ["object"]
    assert source.objects == 1


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"animal": "dog"}, "dog"),
        ({"colour": "red", "Label": "dog"}, "dog"),
        ({"type": {"dog": True, "cat": False}}, "dog"),
    ],
)
def test_the_attribute_that_holds_the_class(tmp_path: Path, attributes: dict[str, Any], name: str) -> None:
    source = read(tmp_path, via_region(**attributes))
    assert [category.name for category in source.categories] == [name]


def test_attributes_that_nobody_can_choose_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="have the attributes colour, size; call the one that holds the class 'class'"):
        read(tmp_path, via_region(colour="red", size="big"))


def test_what_makes_no_sense_is_skipped_and_what_is_missing_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = {"x": {"filename": "gone.jpg", "size": -1, "regions": [via_region()], "file_attributes": {}}}
    source = read(
        tmp_path,
        via_region(),
        via_region({"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}),
        via_region({"name": "rect", "x": 1}),
        {"shape_attributes": via_region()["shape_attributes"], "region_attributes": {}},
        **gone,
    )
    assert source.objects == 2
    reasons = {problem.reason for problem in source.problems}
    assert reasons == {
        "a polygon without its numbers (fewer than three points)",
        "a rect without its numbers ('y')",
        "the region has no 'class'",
        "the image is not there",
    }
    assert source.objects_left_out == 2 * 3 + 1
    assert "1 images are not there and are left out, such as gone.jpg" in caplog.text
