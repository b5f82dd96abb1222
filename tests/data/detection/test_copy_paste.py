"""Pasted objects against whole masks, pixel by pixel."""

import random
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from botformer.data.detection.batches import detection_training_batches
from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.copy_paste import paste_objects
from botformer.data.detection.transforms import DetectionImages
from tests.data.detection.coco_files import annotation, compressed, content, disc, image, write

SIZE, SIDE = 64, 16
"""Of the canvas, and of every box: a crop of as many cells has a cell per pixel, so that nothing is rounded."""


def random_target(rng, count, has_mask=0.8):
    corners = rng.integers(0, SIZE - SIDE + 1, (count, 2))
    crops = (rng.random((count, SIDE, SIDE)) < 0.5).astype(np.uint8)
    crops[:, [0, -1], :] = crops[:, :, [0, -1]] = 1  # the box is tight
    known = rng.random(count) < has_mask
    return {
        "boxes": np.concatenate([corners, corners + SIDE], 1).astype(np.float32),
        "labels": rng.integers(1, 4, count),
        "mask_crops": crops * known[:, None, None].astype(np.uint8),
        "has_mask": known,
    }


def whole_masks(target):
    masks = np.zeros((len(target["boxes"]), SIZE, SIZE), dtype=bool)
    for mask, (x1, y1, x2, y2), crop in zip(masks, target["boxes"].astype(int), target["mask_crops"], strict=True):
        mask[y1:y2, x1:x2] = crop
    return masks


def tight(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("seed", range(25))
def test_what_is_pasted_and_what_it_hides_is_what_whole_masks_say(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    target, source_target = random_target(rng, 6), random_target(rng, 5)
    canvas, source = (torch.from_numpy(rng.integers(0, 256, (3, SIZE, SIZE)).astype(np.uint8)) for _ in range(2))
    extent = (50, 64)
    before = canvas.clone()
    chosen = rng.random(5) < 0.5
    draws = iter(np.where(chosen[source_target["has_mask"]], 0.1, 0.9))
    monkeypatch.setattr(random, "random", lambda: next(draws))
    monkeypatch.setattr(random, "choice", lambda places: places[0])
    result = paste_objects(canvas, target, extent, source, source_target)

    chosen &= source_target["has_mask"]
    if not chosen.any() and source_target["has_mask"].any():
        chosen[np.flatnonzero(source_target["has_mask"])[0]] = True
    pasted = whole_masks(source_target)
    complete = pasted.sum((1, 2))
    pasted[:, extent[0] :] = False
    chosen &= pasted.sum((1, 2)) >= 0.1 * complete
    covered = pasted[chosen].any(0)
    assert torch.equal(canvas, torch.where(torch.from_numpy(covered), source, before))
    wanted = []  # label, box, has a mask, whole mask
    for mask, box, label, known in zip(
        whole_masks(target), target["boxes"], target["labels"], target["has_mask"], strict=True
    ):
        if known:
            left = mask & ~covered
            if left.sum() >= 0.1 * mask.sum():
                wanted.append((label, tight(left), True, left))
        else:
            x1, y1, x2, y2 = box.astype(int)
            if (~covered[y1:y2, x1:x2]).mean() >= 0.1:
                wanted.append((label, box.tolist(), False, None))
    wanted += [
        (label, tight(mask), True, mask)
        for mask, label in zip(pasted[chosen], source_target["labels"][chosen], strict=True)
    ]
    assert result["labels"].tolist() == [label for label, *_ in wanted]
    assert result["has_mask"].tolist() == [known for *_, known, _ in wanted]
    assert result["boxes"].tolist() == [list(map(float, box)) for _, box, *_ in wanted]
    for box, crop, (*_, known, mask) in zip(result["boxes"], result["mask_crops"], wanted, strict=True):
        if known:
            x, y = (
                (low + (np.arange(SIDE) + 0.5) * (high - low) / SIDE).astype(int)
                for low, high in ((box[0], box[2]), (box[1], box[3]))
            )
            assert np.array_equal(crop, mask[np.ix_(y, x)])


CROWD = {"iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [0, 2400]}}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Ten images: masks as polygons, as run lengths, boxes alone, a crowd, nothing."""
    root = tmp_path_factory.mktemp("coco")
    images = [image(number, f"{number:02}.png", 60, 40) for number in range(1, 11)]
    objects = []
    for number in range(1, 9):
        x, y = 5 + 3 * number, 4 + 2 * number
        shapes = {0: [[x, y, x + 14, y, x + 7, y + 14]], 1: compressed(disc(40, 60, x + 7, y + 7, 7)), 2: None}
        shape = shapes[number % 3]
        objects += [annotation(number, number, [x, y, 14, 14]) | ({"segmentation": shape} if shape else {})]
    objects += [annotation(20, 9, [0, 0, 60, 40], **CROWD)]
    return open_coco(write(root, content(images, objects)), root / "train")


IMAGES = DetectionImages(size=64, scale_jitter=(0.5, 2.0), mask_crop=28, copy_paste=1.0)


def batches(source, images, workers=0, epochs=4):
    loader = detection_training_batches(source, images, 5, seed=1, workers=workers)
    return list(islice(loader.starting_at(0), 2 * epochs))


def test_objects_of_other_images_come_with_their_masks_and_never_a_crowd(source):
    plain, pasted = batches(source, replace(IMAGES, copy_paste=0.0), epochs=20), batches(source, IMAGES, epochs=20)
    count = [sum(len(target["boxes"]) for batch in each for target in batch["targets"]) for each in (plain, pasted)]
    assert 1.25 * count[0] < count[1] < 1.8 * count[0]
    for batch in pasted:
        for target in batch["targets"]:
            boxes, (height, width) = target["boxes"], target["size"]
            assert (boxes[:, 2:] - boxes[:, :2] > 0).all()
            assert (boxes.min() if len(boxes) else 0) >= 0
            assert (boxes[:, 2] <= width).all()
            assert (boxes[:, 3] <= height).all()
            assert torch.equal(target["mask_crops"].flatten(1).any(1), target["has_mask"])
            assert target["mask_crops"].dtype == torch.uint8
            if target["image_id"] in (9, 10):  # no objects of its own: what is there was pasted, and so has a mask
                assert target["has_mask"].all()
    assert any(len(target["boxes"]) for batch in pasted for target in batch["targets"] if target["image_id"] == 10)


def test_pasting_depends_on_the_seed_alone(source):
    for one, other in zip(batches(source, IMAGES), batches(source, IMAGES, workers=2), strict=True):
        assert torch.equal(one["images"], other["images"])
        for target, again in zip(one["targets"], other["targets"], strict=True):
            assert all(torch.equal(target[name], again[name]) for name in ("boxes", "labels", "mask_crops", "has_mask"))


def test_boxes_alone_are_left_as_they_are(source, tmp_path):
    bare = [annotation(number, number, [9, 9, 14, 14]) for number in range(1, 6)]
    images = [image(number, f"{number:02}.png", 60, 40) for number in range(1, 6)]
    alone = open_coco(write(tmp_path, content(images, bare)), tmp_path / "train")
    sizes = replace(IMAGES, scale_jitter=(1.0, 1.0), hflip=False)
    for one, other in zip(
        batches(alone, sizes, epochs=1), batches(alone, replace(sizes, copy_paste=0.0), epochs=1), strict=True
    ):
        assert torch.equal(one["images"], other["images"])


def test_an_image_that_cannot_be_read_is_not_pasted_and_counted_in_its_turn(source, tmp_path):
    images = [image(number, f"{number:02}.png", 60, 40) for number in (1, 2)]
    objects = [
        annotation(number, number, [9, 9, 14, 14], segmentation=compressed(disc(40, 60, 16, 16, 7)))
        for number in (1, 2)
    ]
    broken = open_coco(write(tmp_path, content(images, objects)), tmp_path / "train")
    (tmp_path / "train" / "02.png").write_bytes(b"no image")
    loader = detection_training_batches(broken, IMAGES, 1, seed=1, workers=0)
    for batch in islice(loader.starting_at(0), 8):
        assert batch["files"] == ["01.png"]
    assert list(loader.bad) == ["02.png"]
