"""Repeat-factor sampling against factors worked out by hand, and the draws against the factors."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from botformer.data.detection.batches import detection_training_batches
from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.repeat_factors import repeat_factors
from botformer.data.detection.transforms import DetectionImages
from tests.data.detection.coco_files import annotation, content, image, write

IMAGES = DetectionImages(size=32, scale_jitter=(0.5, 2.0), repeat_threshold=0.64)
CROWD = {"size": [30, 40], "counts": [0, 9, 1191]}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Class 0 is in all of 25 images but the last, class 7 in one (which also has class 0), class 90 in the last as a
    crowd alone."""
    root = tmp_path_factory.mktemp("coco")
    images = [image(number, f"{number:02}.png") for number in range(1, 26)]
    annotations = [annotation(number, number, [12, 7, 16, 16], category_id=0) for number in range(1, 25)]
    annotations += [
        annotation(90, 3, [2, 3, 8, 8], category_id=7),
        annotation(91, 25, [0, 0, 30, 9], category_id=90, iscrowd=1, segmentation=CROWD),
    ]
    return open_coco(write(root, content(images, annotations)), root / "train")


def drawn(source, images, epochs, batch_size=5, **place):
    loader = detection_training_batches(source, images, batch_size, seed=3, workers=0, **place)
    batches = iter(loader.starting_at(0))
    return [next(batches) for _ in range(epochs * loader.steps_per_epoch)]


def test_factors_are_those_of_the_paper(source):
    # f = 24/25, 1/25, 0: sqrt(0.64 / 0.96) < 1, sqrt(0.64 / 0.04) = 4. A crowd is no object.
    assert repeat_factors(source, 0.64) == pytest.approx([1, 1, 4] + [1] * 22)


def test_every_image_is_drawn_as_often_as_it_is_due_in_epochs_of_the_same_length(source):
    batches = drawn(source, IMAGES, epochs=40)
    assert len(batches) == 40 * 5
    counts = Counter(file for batch in batches for file in batch["files"])
    due = 25 * np.array([1, 1, 4] + [1] * 22) / 28
    assert counts["03.png"] == pytest.approx(40 * due[2], abs=40 * 0.5)
    for number in range(40):  # systematic: never a draw more or less than due
        in_epoch = Counter(file for batch in batches[5 * number : 5 * number + 5] for file in batch["files"])
        assert in_epoch["03.png"] in (3, 4)
        assert max(in_epoch[f"{other:02}.png"] for other in range(1, 26) if other != 3) == 1
    for place, name in enumerate(f"{number:02}.png" for number in range(1, 26)):
        if place != 2:
            assert 0.7 < counts[name] / (40 * due[place]) < 1.15


def test_an_image_that_is_drawn_again_is_augmented_in_another_way(source):
    seen = [
        canvas
        for batch in drawn(source, IMAGES, epochs=1)
        for canvas, file in zip(batch["images"], batch["files"], strict=True)
        if file == "03.png"
    ]
    assert len(seen) >= 3
    assert not any(torch.equal(one, other) for place, one in enumerate(seen) for other in seen[:place])


def test_processes_share_an_epoch_and_a_resumed_run_goes_on_as_it_would_have(source):
    whole = [batch["files"] for batch in drawn(source, IMAGES, epochs=2, batch_size=4)]
    first, second = ([b["files"] for b in drawn(source, IMAGES, 2, 4, rank=rank, world=2)] for rank in (0, 1))
    assert [batch[0::2] for batch in whole] == first
    assert [batch[1::2] for batch in whole] == second
    loader = detection_training_batches(source, IMAGES, 4, seed=3, workers=0)
    assert next(iter(loader.starting_at(7)))["files"] == whole[7]


def test_equal_classes_are_drawn_once_each(source):
    even = drawn(source, replace(IMAGES, repeat_threshold=0.04), epochs=1)
    assert sorted(file for batch in even for file in batch["files"]) == [f"{n:02}.png" for n in range(1, 26)]
