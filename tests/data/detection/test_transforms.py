import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.dataset import ImageRecord
from botformer.data.detection.mask_targets import crop_mask
from botformer.data.detection.transforms import (
    CanvasTransform,
    DetectionImages,
    fitting_transform,
    random_transform,
    transform_objects,
)
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, compressed, content, disc, image

WIDTH, HEIGHT, SIZE = 200, 120, 96

PLACEMENTS = [
    CanvasTransform((WIDTH, HEIGHT), rot90, hflip, scaled if rot90 % 2 == 0 else scaled[::-1], corner, (SIZE, SIZE))
    for rot90 in range(4)
    for hflip in (False, True)
    for scaled, corner in (((90, 54), (0, 0)), ((250, 150), (31, 20)), ((96, 58), (0, 0)), ((300, 90), (104, 0)))
    if rot90 % 2 == 0 or corner == (0, 0)
]


def smooth_image() -> Image.Image:
    """Without detail that two ways of resampling could disagree on."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    channels = [np.sin(columns / 23) * np.cos(rows / 17), np.cos(columns / 31), np.sin(rows / 13)]
    return Image.fromarray((np.stack(channels, -1) * 100 + 120).astype(np.uint8))


def by_torchvision(tensor: torch.Tensor, transform: CanvasTransform) -> torch.Tensor:
    """Whole image turned, mirrored, resized; then cut and padded. (..., height, width) -> (..., SIZE, SIZE)."""
    tensor = F.rotate(tensor, 90 * transform.rot90, expand=True)
    if transform.hflip:
        tensor = F.horizontal_flip(tensor)
    tensor = F.resize(tensor, list(transform.scaled_px[::-1]), interpolation=v2.InterpolationMode.BILINEAR)
    left, top = transform.corner_px
    return F.crop(tensor, top, left, SIZE, SIZE)  # pads with 0 beyond


def image_with(*annotations: dict) -> ImageRecord:
    source = coco_dataset(content([image(1, width=WIDTH, height=HEIGHT)], list(annotations)), "here", Path())
    assert not source.problems
    return source.image(0)


def record(mask: np.ndarray, crowd: int = 0) -> ImageRecord:
    """An image with one object, its box tight around it."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    return image_with(annotation(1, 1, list(map(float, box)), segmentation=compressed(mask), iscrowd=crowd))


@pytest.mark.parametrize("transform", PLACEMENTS)
def test_pixels_are_those_of_torchvisions_transforms(transform: CanvasTransform) -> None:
    image = smooth_image()
    ours = transform.draw(image)
    peer = by_torchvision(torch.from_numpy(np.array(image)).permute(2, 0, 1), transform)
    height, width = transform.extent
    assert (ours.float() - peer.float())[:, :height, :width].abs().max() <= 2
    assert ours[:, height:].sum() == ours[:, :, width:].sum() == 0
    assert ours.shape == (3, SIZE, SIZE)
    assert ours.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("transform", PLACEMENTS)
def test_boxes_go_where_torchvisions_transforms_take_the_pixels(transform: CanvasTransform) -> None:
    boxes = np.array([[50.0, 30, 90, 70], [100, 40, 180, 110], [0, 0, 200, 120]])
    for box, ours in zip(boxes, transform.boxes(boxes), strict=True):
        x1, y1, x2, y2 = box.astype(int)
        patch = torch.zeros(1, HEIGHT, WIDTH)
        patch[:, y1:y2, x1:x2] = 1
        seen = by_torchvision(patch, transform)[0]
        ours = np.clip(ours, 0, np.array(transform.extent[::-1] * 2))
        if not seen.any():
            assert (ours[2:] - ours[:2]).min() <= 0.5
            continue
        for low, high, profile in ((0, 2, seen.amax(0)), (1, 3, seen.amax(1))):
            assert abs(ours[high] - ours[low] - profile.sum()) < 1  # half set pixels at both ends
            assert (
                abs((ours[high] + ours[low]) / 2 - (profile * (torch.arange(SIZE) + 0.5)).sum() / profile.sum()) < 0.6
            )
    assert np.allclose(transform.back(transform.boxes(boxes)), boxes)


@pytest.mark.parametrize("transform", PLACEMENTS)
def test_masks_lie_where_torchvisions_transforms_take_them(transform: CanvasTransform) -> None:
    mask = disc(HEIGHT, WIDTH, 90, 60, 45) & ~disc(HEIGHT, WIDTH, 70, 50, 15)
    mask[:, 110:] = False
    placed = transform_objects(record(mask), transform, 64)
    seen = by_torchvision(torch.from_numpy(mask)[None].float(), transform)[0] >= 0.5
    assert len(placed["boxes"]) == 1
    x1, y1, x2, y2 = placed["boxes"][0].tolist()
    pasted = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    for row in range(SIZE):
        for column in range(SIZE):
            u, v = (column + 0.5 - x1) / (x2 - x1) * 64, (row + 0.5 - y1) / (y2 - y1) * 64
            if 0 <= u < 64 and 0 <= v < 64:
                pasted[row, column] = bool(placed["mask_crops"][0, int(v), int(u)])
    assert (pasted & seen).sum() / (pasted | seen).sum() > 0.93


def test_a_mirrored_and_scaled_mask_is_the_very_same_crop_mirrored() -> None:
    mask = disc(HEIGHT, WIDTH, 60, 50, 31.7) & ~disc(HEIGHT, WIDTH, 45, 50, 9)
    plain = CanvasTransform((WIDTH, HEIGHT), 0, False, (WIDTH, HEIGHT), (0, 0), (WIDTH, WIDTH))
    expected = transform_objects(record(mask), plain, 112)["mask_crops"][0]
    for scaled in ((WIDTH * 2, HEIGHT * 2), (90, 54)):
        moved = CanvasTransform((WIDTH, HEIGHT), 0, True, scaled, (0, 0), (2 * WIDTH, 2 * WIDTH))
        assert np.array_equal(transform_objects(record(mask), moved, 112)["mask_crops"][0], expected[:, ::-1])


def test_objects_that_are_cut_keep_the_part_that_is_seen() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[20:60, 80:120] = disc(40, 40, 20, 20, 20)
    placed = transform_objects(
        record(mask), CanvasTransform((WIDTH, HEIGHT), 0, False, (WIDTH, HEIGHT), (0, 0), (100, 100)), 112
    )
    assert placed["boxes"].tolist() == [[80, 20, 100, 60]]
    assert np.array_equal(placed["mask_crops"][0], crop_mask(compressed(mask), (80, 20, 100, 60), 112))


def test_objects_off_the_canvas_are_gone_also_those_of_which_only_the_box_is_on_it() -> None:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:30, 100:130] = True
    found = image_with(
        annotation(1, 1, [120, 5, 30, 15]),  # off
        annotation(2, 1, [90, 10, 40, 20], segmentation=compressed(mask)),  # only the empty part of its box is on it
        annotation(3, 1, [90, 40, 40, 20]),  # cut, and nobody knows its shape
        annotation(
            4, 1, [50, 50, 10, 10], segmentation=[[50, 50, 55, 55, 60, 60]], area=1.0
        ),  # whole, its shape has no area
    )
    placed = transform_objects(
        found, CanvasTransform((WIDTH, HEIGHT), 0, False, (WIDTH, HEIGHT), (0, 0), (100, 100)), 28
    )
    assert placed["boxes"].tolist() == [[90, 40, 100, 60], [50, 50, 60, 60]]
    assert placed["has_mask"].tolist() == [False, False]


def test_slivers_of_less_than_a_pixel_are_gone() -> None:
    found = image_with(annotation(1, 1, [80, 20, 41, 40]))  # its right edge at 90.75 px when scaled
    for left, expected in ((89, [[0, 15, 1.75, 45]]), (90, [])):
        transform = CanvasTransform((WIDTH, HEIGHT), 0, False, (150, 90), (left, 0), (50, 50))
        assert transform_objects(found, transform, 28)["boxes"].tolist() == expected


def test_crowds_are_no_objects_and_boxes_without_masks_say_so() -> None:
    mask = disc(HEIGHT, WIDTH, 60, 50, 20)
    objects, crowd = record(mask), record(mask, crowd=1)
    bare = image_with(annotation(9, 1, [5, 6, 10, 11], category_id=90))
    mixed = ImageRecord(1, "a.png", WIDTH, HEIGHT, objects.annotations + crowd.annotations + bare.annotations, {})
    placed = transform_objects(mixed, fitting_transform((WIDTH, HEIGHT), (WIDTH, WIDTH)), 28)
    assert placed["boxes"].tolist() == [[40, 30, 80, 70], [5, 6, 15, 17]]
    assert placed["labels"].tolist() == [2, 3]
    assert placed["has_mask"].tolist() == [True, False]
    assert placed["mask_crops"].dtype == np.uint8
    assert placed["mask_crops"][0].sum() == pytest.approx(28 * 28 * np.pi / 4, rel=0.03)
    assert placed["mask_crops"][1].sum() == 0


def test_no_objects_give_empty_arrays_of_the_usual_shapes() -> None:
    placed = transform_objects(ImageRecord(1, "a.png", 40, 30, (), {}), fitting_transform((40, 30), (64, 64)), 112)
    shapes = {key: (value.shape, value.dtype.name) for key, value in placed.items()}
    assert shapes == {
        "boxes": ((0, 4), "float32"),
        "labels": ((0,), "int64"),
        "mask_crops": ((0, 112, 112), "uint8"),
        "has_mask": ((0,), "bool"),
    }


# What is drawn


def test_scales_and_corners_fill_their_range_evenly() -> None:
    random.seed(0)
    images = DetectionImages(size=100, scale_jitter=(0.5, 2.0))
    drawn = [random_transform((400, 200), images) for _ in range(2000)]
    scales = np.array([transform.scaled_px[0] / 100 for transform in drawn])
    assert np.abs(np.quantile(scales, [0, 0.25, 0.5, 0.75, 1]) - [0.5, 0.875, 1.25, 1.625, 2]).max() < 0.06
    assert all(abs(p.scaled_px[1] - p.scaled_px[0] / 2) <= 0.5 for p in drawn)
    assert {p.rot90 for p in drawn} == {0}
    assert 0.45 < np.mean([p.hflip for p in drawn]) < 0.55
    large = [p for p in drawn if p.scaled_px[0] > 150]
    places = np.array([p.corner_px[0] / (p.scaled_px[0] - 100) for p in large])
    assert abs(places.mean() - 0.5) < 0.03
    assert (places.min(), places.max()) == (0, 1)
    assert all(p.corner_px == (0, 0) for p in drawn if p.scaled_px[0] <= 100)


def test_torchvision_draws_the_same_scales() -> None:
    """ScaleJitter's sizes, for jitters that leave no choice."""
    for jitter in (0.3, 1.0, 1.7):
        peer = v2.ScaleJitter((100, 100), (jitter, jitter))(torch.zeros(3, 211, 333))
        ours = random_transform((333, 211), DetectionImages(size=100, scale_jitter=(jitter, jitter)))
        assert np.abs(np.array(ours.scaled_px[::-1]) - peer.shape[1:]).max() <= 1  # they cut off, we round


def test_rot90_and_hflip_only_when_asked_for() -> None:
    random.seed(0)
    drawn = [random_transform((40, 30), DetectionImages(size=40, hflip=False, rot90=True)) for _ in range(400)]
    assert not any(p.hflip for p in drawn)
    assert np.bincount([p.rot90 for p in drawn]).min() > 70


def test_a_part_is_laid_around_each_object_as_often_wherever_it_is_and_however_it_is_turned() -> None:
    random.seed(0)
    images = DetectionImages(size=100, scale_jitter=(3.0, 5.0), rot90=True, crop_around_object=1.0)
    objects = [
        (0.0, 0.0, 4.0, 5.0),
        (390.0, 190.0, 400.0, 200.0),
        (100.0, 100.0, 120.0, 106.0),
        (50.0, 10.0, 350.0, 190.0),
    ]
    drawn = [random_transform((400, 200), images, objects) for _ in range(1000)]
    placed = np.array([transform.boxes(np.array(objects)) for transform in drawn])
    shown = ((placed[..., :2] >= -1e-6) & (placed[..., 2:] <= 100 + 1e-6)).all(-1)  # as a whole
    larger = (np.clip(placed, 0, 100)[..., 2:] - np.clip(placed, 0, 100)[..., :2] > 0).all(-1)[:, 3]
    assert (shown.any(1) | larger).all()
    assert all(0.2 < often < 0.4 for often in shown[:, :3].mean(0))
    where = placed[shown[:, 2], 2, 0]
    assert np.quantile(where, 0.1) < 20 < 70 < np.quantile(where, 0.9)  # not always in the middle
    random.seed(0)
    seldom = replace(images, crop_around_object=0.0)
    corner = [_is_shown(random_transform((400, 200), seldom, objects), objects[0]) for _ in range(1000)]
    assert np.mean(corner) < 0.1
    assert random_transform((400, 200), images).corner_px  # no objects: anywhere


def _is_shown(transform: CanvasTransform, box: tuple[float, float, float, float]) -> bool:
    (placed,) = transform.boxes(np.array([box]))
    return bool(placed.min() >= 0 and placed.max() <= 100)


def test_evaluation_shows_the_whole_image_as_large_as_it_fits() -> None:
    transform = fitting_transform((640, 427), (1024, 1024))
    assert transform.extent == (683, 1024)
    assert transform.scale == (1024 / 640, 683 / 427)
    assert np.allclose(transform.boxes(np.array([[0.0, 0, 640, 427]])), [[0, 0, 1024, 683]])
    assert fitting_transform((1, 5000), (64, 64)).extent == (64, 1)


@pytest.mark.parametrize("jitter", [(0.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_jitter_that_is_none_is_refused(jitter: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="scale_jitter"):
        DetectionImages(scale_jitter=jitter)
    with pytest.raises(InputError, match=r"images\.size is 0; expected from 1 to 65536"):
        DetectionImages(size=0)
