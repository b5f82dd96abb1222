"""Tiles of large images: against images of known objects and a detector that reports what a tile shows."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch

from botformer.detection.sliced_inference import Tiling, box_pixels, mask_at
from botformer.errors import InputError
from botformer.rle import decode, encode

TILE = 64


def blob(rng, size, width, height):
    """An ellipse in a rough direction, somewhere; its bounding box is at most (width, height)."""
    x, y = rng.uniform(0, size[1] - 1), rng.uniform(0, size[0] - 1)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    return ((columns - x) / (width / 2)) ** 2 + ((rows - y) / (height / 2)) ** 2 <= 1


def scene(seed, size, sides, attempts=40):
    """Objects that do not overlap: masks (n, h, w), labels (n,), scores (n,)."""
    rng = np.random.default_rng(seed)
    taken, masks = np.zeros(size, dtype=bool), []
    for _ in range(attempts):
        mask = blob(rng, size, *rng.uniform(*sides, 2))
        if mask.any() and not (mask & taken).any():
            taken |= mask
            masks.append(mask)
    return np.array(masks), rng.integers(1, 3, len(masks)), rng.uniform(0.2, 1, len(masks))


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def visible(objects, tile, rng=None):
    """What an ideal detector reports of a tile; with `rng`, one that is less sure of what it sees."""
    found = []
    for mask, label, score in zip(*objects, strict=True):
        seen = mask[tile.top : tile.bottom, tile.left : tile.right]
        if seen.any():
            found.append((box_of(seen), label, score * (rng.uniform(0.5, 1) if rng else 1), encode(seen)))
    return {
        "boxes": torch.tensor([box for box, *_ in found], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([label for _, label, *_ in found], dtype=torch.int64),
        "scores": torch.tensor([score for *_, score, _ in found], dtype=torch.float32),
        "masks": [mask for *_, mask in found],
    }


def as_set(masks, labels):
    return sorted((np.packbits(mask).tobytes(), int(label)) for mask, label in zip(masks, labels, strict=True))


SIZES = [(150, 230), (64, 300), (300, 50), (65, 64), (129, 128)]
# Seven thirty-seconds of the tile are 14 px; the others are seen whole by few tiles or none.
SIDES = {"small": (2, 14), "any": (4, 90), "large": (60, 160)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("seed", range(6))
def test_each_object_comes_once_and_whole_wherever_windows_cut_it(size, sides, seed):
    objects = scene(seed, size, SIDES[sides])
    tiling = Tiling(size, TILE)
    rng = np.random.default_rng(seed + 100)
    merged = tiling.merge([visible(objects, tile, rng) for tile in tiling.tiles])
    assert as_set([decode(mask) for mask in merged["masks"]], merged["labels"]) == as_set(*objects[:2])
    boxes = [box_of(decode(mask)) for mask in merged["masks"]]
    assert merged["boxes"].tolist() == boxes
    assert merged["scores"].tolist() == sorted(merged["scores"].tolist(), reverse=True)


@pytest.mark.parametrize("seed", range(4))
def test_boxes_without_masks_come_once_too(seed):
    """Apart from each other: boxes of neighbours overlap, and nothing but the overlap tells objects apart."""
    size = (200, 260)
    boxes = [[x, y, x + 10, y + 12] for x in range(3 + seed, 240, 23) for y in range(5 + seed, 180, 31)]
    tiling = Tiling(size, TILE)
    found = []
    for tile in tiling.tiles:
        corner = np.array([tile.left, tile.top] * 2)
        seen = np.clip(np.array(boxes) - corner, 0, TILE)
        seen = seen[(seen[:, 2] > seen[:, 0]) & (seen[:, 3] > seen[:, 1])]
        found.append(
            {
                "boxes": torch.tensor(seen, dtype=torch.float32),
                "labels": torch.ones(len(seen), dtype=torch.int64),
                "scores": torch.full((len(seen),), 0.5),
            }
        )
    merged = tiling.merge(found)
    assert sorted(merged["boxes"].int().tolist()) == sorted(boxes)
    assert "masks" not in merged


def test_touching_objects_of_two_windows_stay_two():
    size = (64, 112)
    mask = np.zeros(size, dtype=bool)
    left, right = mask.copy(), mask.copy()
    left[20:30, 50:56], right[20:30, 56:62] = True, True
    tiling = Tiling(size, TILE)
    touching = (np.array([left, right]), np.array([1, 1]), np.array([0.9, 0.8]))
    merged = tiling.merge([visible(touching, tile) for tile in tiling.tiles])
    assert as_set([decode(mask) for mask in merged["masks"]], merged["labels"]) == as_set(*touching[:2])


def one(tiling, number, columns, label, score):
    """What a tile reports of a bar in these columns of the image."""
    mask = np.zeros((1, *tiling.size), dtype=bool)
    mask[0, 20:30, columns] = True
    return visible((mask, np.array([label]), np.array([score])), tiling.tiles[number])


@pytest.mark.parametrize("columns", [slice(52, 60), slice(20, 90)])
def test_categories_are_kept_apart_whether_whole_or_cut(columns):
    tiling = Tiling((64, 112), TILE)
    merged = tiling.merge([one(tiling, 0, columns, 1, 0.9), one(tiling, 1, columns, 2, 0.8)])
    assert merged["labels"].tolist() == [1, 2]
    seen = range(max(columns.start, 48), columns.stop)
    assert merged["boxes"][1].tolist() == [seen.start, 20, seen.stop, 30]


def test_a_whole_look_goes_before_a_cut_one_however_sure():
    """The tile that cuts the object sees it begin too early: before the other tile, which so cannot hold it."""
    tiling = Tiling((64, 112), TILE)
    merged = tiling.merge([one(tiling, 0, slice(47, 70), 1, 0.9), one(tiling, 1, slice(50, 70), 1, 0.6)])
    assert merged["boxes"].tolist() == [[50, 20, 70, 30]]


def test_of_two_looks_at_one_object_the_better_stays():
    """The tiles disagree by a pixel, as detectors do; neither is cut."""
    size = (64, 112)
    tiling = Tiling(size, TILE)
    first, second = tiling.tiles
    assert second.left < 56 < first.right
    merged = tiling.merge([one(tiling, 0, slice(51, 59), 1, 0.6), one(tiling, 1, slice(52, 60), 1, 0.7)])
    assert merged["scores"].tolist() == pytest.approx([0.7])
    assert merged["boxes"].tolist() == [[52, 20, 60, 30]]


def test_what_a_border_cuts_is_not_believed_where_another_window_sees_it_clear():
    """Half an object may look like another kind of object."""
    tiling = Tiling((64, 112), TILE)
    merged = tiling.merge([one(tiling, 0, slice(58, 68), 2, 0.9), one(tiling, 1, slice(58, 68), 1, 0.6)])
    assert merged["labels"].tolist() == [1]


@pytest.mark.parametrize("size", [(64, 64), (10, 64), (33, 20)])
def test_a_image_no_larger_than_a_tile_is_left_as_it_was_found(size):
    tiling = Tiling(size, TILE)
    assert tiling.tiles == [(0, 0, size[1], size[0])]
    found = visible(scene(0, size, (2, 14)), tiling.tiles[0])
    merged = tiling.merge([found])
    assert merged.keys() == found.keys()
    assert all(merged[key] is found[key] for key in found)


def test_nothing_found_is_nothing():
    tiling = Tiling((100, 200), TILE)
    nothing = (np.zeros((0, 100, 200), dtype=bool), [], [])
    merged = tiling.merge([visible(nothing, tile) for tile in tiling.tiles])
    assert merged["boxes"].shape == (0, 4)
    assert merged["labels"].shape == merged["scores"].shape == (0,)
    assert merged["masks"] == []


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_the_image_and_overlap_by_a_quarter(seed):
    rng = np.random.default_rng(seed)
    size, tile = tuple(rng.integers(1, 1500, 2).tolist()), int(rng.integers(64, 400))
    tiles = Tiling(size, tile).tiles
    for axis, length in ((0, size[1]), (1, size[0])):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert {end - start for start, end in spans} == {min(tile, length)}
        assert all(before[1] - after[0] >= tile // 4 for before, after in itertools.pairwise(spans))


def test_a_tile_too_small_to_hold_objects_is_refused():
    with pytest.raises(InputError, match="at least 64 px, got 8"):
        Tiling((100, 100), 8)


def test_pixels_of_a_mask_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.6, 1.0):
        mask = rng.random((23, 31)) < share
        rle = encode(mask)
        assert np.array_equal(mask_at(rle, range(23), range(31)), mask)
        rows, columns = rng.integers(0, 23, 9), rng.integers(0, 31, 12)
        assert np.array_equal(mask_at(rle, rows, columns), mask[rows][:, columns])
        assert mask_at(rle, range(4, 4), range(5)).shape == (0, 5)


def test_pixels_of_a_box_are_those_it_touches():
    assert box_pixels(np.array([1.2, 0.0, 3.0, 4.9]), (10, 10)) == (range(0, 5), range(1, 3))
    assert box_pixels(np.array([-2.0, 8.5, 3.0, 14.0]), (10, 10)) == (range(8, 10), range(0, 3))


def test_no_mask_of_the_whole_image_is_ever_made():
    """60,000 x 40,000 px: one such mask would be 2.4 GB, one of a tile 400 MB."""
    size = (40_000, 60_000)
    tiling = Tiling(size, 20_000)
    small = encode(np.ones((10, 10), dtype=bool))
    found = []
    for tile in tiling.tiles:
        # A square in the middle of the tile, as run lengths of the tile.
        before, side = 9_995 * 20_000 + 9_995, 10
        counts = [before] + [side, 20_000 - side] * (side - 1) + [side]
        mask = {"size": [20_000, 20_000], "counts": counts_of(counts + [20_000**2 - sum(counts)])}
        found.append(
            {
                "boxes": torch.tensor([[9_995.0, 9_995.0, 10_005.0, 10_005.0]]),
                "labels": torch.tensor([1]),
                "scores": torch.tensor([0.9]),
                "masks": [mask],
            }
        )
        assert (tile.right - tile.left, tile.bottom - tile.top) == (20_000, 20_000)
    tracemalloc.start()
    merged = tiling.merge(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert len(merged["masks"]) == len(tiling.tiles)
    box = merged["boxes"][0].numpy()
    rows, columns = box_pixels(box, size)
    assert encode(mask_at(merged["masks"][0], rows, columns)) == small


def counts_of(numbers):
    """pycocotools' string of run lengths."""
    from pycocotools import mask as coco_mask

    height, width = 20_000, 20_000
    return coco_mask.frPyObjects({"size": [height, width], "counts": numbers}, height, width)["counts"].decode()
