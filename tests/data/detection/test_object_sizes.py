import logging
from pathlib import Path

import pytest

from botformer.data.detection.batches import detection_evaluation_batches, detection_training_batches
from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.object_sizes import say_small_objects
from botformer.data.detection.transforms import DetectionImages
from tests.data.detection.coco_files import annotation, content, image


def dataset(*sides: float):
    """Objects of so many pixels in an image of 4000x3000, a crowd beside them."""
    found = [annotation(n, 1, [100 * (n % 30), 100, side, 2 * side]) for n, side in enumerate(sides)]
    crowd = annotation(99, 1, [5, 5, 1, 1], iscrowd=1)
    return coco_dataset(content([image(1, width=4000, height=3000)], [*found, crowd]), "here", Path())


@pytest.fixture
def said(caplog):
    def of(canvas, *sides):
        caplog.clear()
        with caplog.at_level(logging.INFO, "botformer.data"):
            say_small_objects(dataset(*sides), canvas)
        return [record for record in caplog.records if "canvas" in record.getMessage()]

    return of


def test_objects_that_shrink_below_a_pixel_are_said_with_what_would_do(said):
    """20 px of 4000 on 128 px are 0.64 px. 4 px they are on 800, and in tiles of 640 px seen at 128."""
    (record,) = said(128, *[20] * 20)
    message = record.getMessage()
    assert record.levelname == "WARNING"
    assert "here: on the canvas of 128 px 20 of 20 objects (100.0 %) are narrower or lower than 1 px" in message
    assert "20 (100.0 %) are under 4 px" in message
    assert "--images.size 800 in training; or tiles of 640 px" in message
    assert "--tile 640" in message
    assert said(800, *[20] * 20) == []


def test_shares_under_one_and_under_four_pixels_are_counted_apart(said):
    """On 400 px a tenth: 0.9, 1.0, 3.9, 4.0 and 40 px."""
    (record,) = said(400, 9, 10, 39, 40, 400)
    assert "1 of 5 objects (20.0 %) are narrower" in record.getMessage()
    assert "3 (60.0 %) are under 4 px" in record.getMessage()
    assert "--images.size 1792" in record.getMessage()  # 4 / (9 / 4000) = 1777.8


def test_a_few_small_ones_are_no_warning_and_no_tile_is_too_small(said):
    (record,) = said(400, *[39] * 1, *[400] * 150)
    assert record.levelname == "INFO"
    (record,) = said(64, 2)
    assert "tile" not in record.getMessage()


def test_training_and_evaluation_say_it_of_their_own_canvas(caplog):
    images = DetectionImages(size=128, test_size=96, scale_jitter=(1.5, 2.0))
    with caplog.at_level(logging.INFO, "botformer.data"):
        detection_training_batches(dataset(20), images, 1, seed=0, workers=0)
        assert "on the canvas of 192 px 1 of 1" in caplog.text
        detection_evaluation_batches(dataset(20), images, 1, workers=0)
        assert "on the canvas of 96 px 1 of 1" in caplog.text
