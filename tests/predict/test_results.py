"""Results in the forms that other programs take, and as drawings."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import botformer
from botformer.errors import InputError
from botformer.recipes.schema import Images
from tests.commands.detection_scenes import KNOWN, save_detector

from .conftest import NAMES


@pytest.fixture(scope="module")
def found(detector, images):
    result = botformer.predictor(detector)(images[6])
    assert result.masks is not None
    return result


@pytest.fixture(scope="module")
def nothing(tmp_path_factory, images):
    network = save_detector(tmp_path_factory.mktemp("blind") / "blind.safetensors", score_threshold=1.0)
    return botformer.predictor(network)(images[6])


@pytest.fixture(scope="module")
def classes(classifier, images):
    return botformer.predictor(classifier)(images[6])


def test_supervision_takes_detections_with_their_masks_and_names(found):
    pytest.importorskip("supervision")
    detections = found.to_supervision()
    assert len(detections) == len(found)
    np.testing.assert_array_equal(detections.xyxy, found.boxes_xyxy)
    np.testing.assert_array_equal(detections.confidence, found.scores)
    assert list(detections.data["class_name"]) == found.names
    assert [KNOWN[number][1] for number in detections.class_id] == found.names
    for index in range(0, len(found), 5):
        mask = np.asarray(detections[[index]].mask)[0]
        np.testing.assert_array_equal(mask, coco_mask.decode(found.masks[index]).astype(bool))
        np.testing.assert_array_equal(mask, found.mask(index))
    assert (detections[detections.confidence > 0.3].class_id == found.above(0.3).labels - 1).all()


def test_supervision_takes_nothing_too(nothing, classes):
    pytest.importorskip("supervision")
    assert len(nothing.to_supervision()) == 0
    classifications = classes.to_supervision()
    ids, confidences = classifications.get_top_k(3)
    assert [NAMES[number] for number in ids] == classes.labels[:3]
    np.testing.assert_allclose(confidences, classes.probabilities[:3])


def test_coco_s_results(found, nothing, classes):
    records = found.to_coco("an id")
    assert len(records) == len(found)
    for record, box, score, name in zip(records, found.boxes_xyxy, found.scores, found.names, strict=True):
        assert record["image_id"] == "an id"
        assert dict(KNOWN)[record["category_id"]] == name
        x, y, w, h = record["bbox"]
        np.testing.assert_allclose((x, y, x + w, y + h), box, rtol=1e-6)
        assert record["score"] == score
        assert record["segmentation"]["size"] == list(found.size_px[::-1])
    assert found.to_coco(1, [11, 12, 13, 14][: len(KNOWN)])[0]["category_id"] == 10 + found.labels[0]
    assert nothing.to_coco(1) == []
    best = classes.to_coco(7)[0]
    assert (best["image_id"], NAMES[best["category_id"]], best["score"]) == (7, classes.label, classes.probability)
    of_one_name = replace(classes, labels=["crane"] * len(classes.labels))  # as two of ImageNet's classes
    records = of_one_name.to_coco(7)
    assert len({each["category_id"] for each in records}) == len(records) > 1
    for each in records:
        assert each["score"] == pytest.approx(float(classes.of_classes[each["category_id"]]))


def test_data_frames(found, nothing, classes):
    pytest.importorskip("pandas")
    table = found.to_dataframe()
    assert list(table.columns) == ["image", "label", "score", "x1", "y1", "x2", "y2", "area_px"]
    assert list(table["label"]) == found.names
    np.testing.assert_array_equal(table[["x1", "y1", "x2", "y2"]], found.boxes_xyxy)
    assert list(table["area_px"]) == [int(coco_mask.area(mask)) for mask in found.masks]
    assert len(nothing.to_dataframe()) == 0
    assert list(classes.to_dataframe().iloc[0]) == [classes.name, classes.label, classes.probability]


@pytest.mark.parametrize(("package", "install"), [("pandas", "pandas"), ("supervision", r"'botformer\[detection\]'")])
def test_a_package_that_is_missing_is_named_with_what_to_do(found, classes, package, install, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for result in (found, classes):
        with pytest.raises(InputError, match=f"needs the package {package}: pip install {install}"):
            result.to_dataframe() if package == "pandas" else result.to_supervision()


def test_drawings(found, nothing, classes, tmp_path):
    for number, draw in enumerate((found.draw, nothing.draw, classes.draw)):
        file = tmp_path / "new folder" / f"{number}.png"
        image = draw(file)
        assert file.stat().st_size > 5000
        np.testing.assert_array_equal(np.asarray(Image.open(file).convert("RGB")), np.asarray(image))
        assert np.array_equal(np.asarray(draw()), np.asarray(image))
        assert np.asarray(image).std() > 10
    assert not np.array_equal(np.asarray(found.draw(threshold=0)), np.asarray(found.draw(threshold=0.9)))
    assert found.draw_attention(1, tmp_path / "attention.png").size == Image.open(tmp_path / "attention.png").size


def test_attention(found, nothing, classes):
    for maps in (found.attention(2), classes.attention((0.2, 1.0))):
        assert maps
        for name, weights in maps:
            assert name.startswith("layer4.")
            assert weights.sum() == pytest.approx(1, abs=1e-4)
    first, other = (dict(classes.attention(query)) for query in ((0.0, 0.0), (1.0, 1.0)))
    assert any(not np.allclose(first[name], other[name]) for name in first)
    with pytest.raises(InputError, match="there is no detection 5000 on"):
        found.attention(5000)
    with pytest.raises(InputError, match="there is no detection 0 on"):
        nothing.draw_attention()
    with pytest.raises(InputError, match="as fractions of the image"):
        classes.attention((2, 0))


def test_boxes_alone_and_key_points(tmp_path, images):
    boxes = botformer.predictor(save_detector(tmp_path / "boxes.safetensors", "faster_rcnn"))(images[6])
    assert boxes.masks is None
    assert "area_px" not in boxes.to_dataframe()
    assert boxes.to_supervision().mask is None
    with pytest.raises(InputError, match="detects no masks"):
        boxes.mask(0)


def test_images_are_prepared_as_the_network_was_trained(classes):
    """What a drawing shows is what the network sees."""
    assert classes.to_plot().image.shape == (32, 32, 3) == (*[Images(size=32).size] * 2, 3)
