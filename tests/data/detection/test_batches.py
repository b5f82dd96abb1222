import json
import logging
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from botformer.data.detection.batches import (
    DetectionBatch,
    detection_evaluation_batches,
    detection_training_batches,
)
from botformer.data.detection.coco_reader import coco_dataset, open_coco
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.transforms import DetectionImages, fitting_transform
from botformer.errors import InputError
from tests.data.detection.coco_files import annotation, compressed, content, disc, image, write

IMAGES = DetectionImages(size=48, scale_jitter=(0.5, 2.0), mask_crop=16)
PLAIN = DetectionImages(size=40, scale_jitter=(1.0, 1.0), hflip=False, mask_crop=16)
MODULE = "botformer.data.detection.batches"
COUNT = 9
MASK = disc(30, 40, 20, 15, 8)


def records(count: int = COUNT) -> dict[str, Any]:
    """Images of 40x30 pixels; image n has n - 1 objects of which every third has a mask, and image 2 a crowd."""
    images = [image(number, f"{number:02}.png") for number in range(1, count + 1)]
    annotations = [
        annotation(100 * number + n, number, [12 + n, 7, 16, 16], category_id=(0, 7, 90)[n % 3])
        | ({"segmentation": compressed(MASK)} if n % 3 == 0 else {})
        for number in range(1, count + 1)
        for n in range(number - 1)
    ]
    return content(images, [*annotations, annotation(1, 2, [0, 0, 30, 9], iscrowd=1, segmentation=compressed(MASK))])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DetectionDataset:
    root = tmp_path_factory.mktemp("coco")
    return open_coco(write(root, records()), root / "train")


def assert_same(first: Iterable[DetectionBatch], second: Iterable[DetectionBatch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["images"], other["images"])
        assert one["files"] == other["files"]
        for target, again in zip(one["targets"], other["targets"], strict=True):
            assert target.keys() == again.keys()
            for key, value in target.items():
                same = torch.equal(value, again[key]) if isinstance(value, torch.Tensor) else value == again[key]
                assert same, key


def training(source: DetectionDataset, batch_size: int = 3, **more: Any) -> Iterable[DetectionBatch]:
    return detection_training_batches(source, IMAGES, batch_size, **(dict(seed=3, workers=0) | more)).starting_at(0)


def test_a_batch_holds_the_pixels_and_objects_of_its_files(source: DetectionDataset) -> None:
    for batches in (
        detection_training_batches(source, PLAIN, COUNT, seed=0, workers=0).starting_at(0),
        detection_evaluation_batches(source, PLAIN, COUNT, workers=0),
    ):
        batch = next(iter(batches))
        assert batch["images"].shape == (COUNT, 3, 40, 40)
        assert batch["images"].dtype == torch.uint8
        assert batch["images"].is_contiguous(memory_format=torch.channels_last)
        for canvas, target, name in zip(batch["images"], batch["targets"], batch["files"], strict=True):
            number = int(name.removesuffix(".png"))
            pixels = np.array(Image.open(source.folder / name))
            assert torch.equal(canvas[:, :30], torch.from_numpy(pixels).permute(2, 0, 1))
            assert canvas[:, 30:].sum() == 0
            assert target["boxes"].tolist() == [[12 + n, 7, 28 + n, 23] for n in range(number - 1)]
            assert target["labels"].tolist() == [(1, 2, 3)[n % 3] for n in range(number - 1)]
            assert (target["image_id"], target["size"], target["original_size"]) == (number, (30, 40), (30, 40))
            assert target["scale"] == (1, 1)


def test_training_targets_have_masks_and_evaluation_targets_the_annotations(source: DetectionDataset) -> None:
    batch = next(iter(training(source, COUNT)))
    shapes = [tuple(target["mask_crops"].shape[1:]) for target in batch["targets"]]
    assert shapes == [(16, 16)] * COUNT
    for target in batch["targets"]:
        assert target["mask_crops"].dtype == torch.uint8
        assert target["mask_crops"].amax((1, 2)).bool().tolist() == target["has_mask"].tolist()
        assert "ground_truth" not in target
    assert any(target["has_mask"].any() for target in batch["targets"])
    (batch,) = detection_evaluation_batches(source, IMAGES, COUNT, workers=0)
    for target in batch["targets"]:
        truth = json.loads(target["ground_truth"])
        expected = [r for r in records()["annotations"] if r["image_id"] == target["image_id"]]
        assert [{key: value for key, value in r.items() if key != "area"} for r in truth] == expected
        assert "mask_crops" not in target


def test_evaluation_scales_up_to_the_canvas_and_says_how_to_come_back(source: DetectionDataset) -> None:
    target = next(iter(detection_evaluation_batches(source, DetectionImages(size=60), 3, workers=0)))["targets"][2]
    assert target["size"] == (45, 60)
    back = target["boxes"] / torch.tensor(target["scale"] * 2)
    assert torch.allclose(back, torch.tensor([[12.0, 7, 28, 23], [13, 7, 29, 23]]))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_do_not_change_a_bit(source: DetectionDataset) -> None:
    assert_same(islice(training(source), 5), islice(training(source, workers=2), 5))
    assert_same(
        detection_evaluation_batches(source, IMAGES, 4, workers=0),
        detection_evaluation_batches(source, IMAGES, 4, workers=1),
    )


def test_a_resumed_run_equals_the_uninterrupted(source: DetectionDataset) -> None:
    batches = detection_training_batches(source, IMAGES, 3, seed=3, workers=0)
    assert_same(islice(batches.starting_at(0), 4, 7), islice(batches.starting_at(4), 3))


def test_other_epochs_scale_and_cut_anew(source: DetectionDataset) -> None:
    first, second = islice(training(source, COUNT), 2)
    pixels = [dict(zip(batch["files"], batch["images"], strict=True)) for batch in (first, second)]
    assert sum(not torch.equal(pixels[0][name], pixels[1][name]) for name in pixels[0]) >= COUNT - 1


def test_two_processes_share_the_batch_of_one(source: DetectionDataset) -> None:
    alone = islice(training(source, 4), 4)
    pair = [islice(training(source, 4, rank=rank, world=2), 4) for rank in range(2)]
    for whole, parts in zip(alone, zip(*pair, strict=True), strict=True):
        for rank, part in enumerate(parts):
            assert part["files"] == whole["files"][rank::2]
            assert torch.equal(part["images"], whole["images"][rank::2])


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_evaluate_every_image_once(source: DetectionDataset, world: int) -> None:
    files = [
        name
        for rank in range(world)
        for batch in detection_evaluation_batches(source, IMAGES, 2, workers=0, rank=rank, world=world)
        for name in batch["files"]
    ]
    assert sorted(files) == [source.name(index) for index in range(COUNT)]


# Bad input


def test_images_missing_or_of_another_size_are_skipped_and_named(tmp_path: Path, caplog) -> None:
    path = write(tmp_path, records(6))
    (tmp_path / "train/01.png").unlink()
    Image.new("RGB", (30, 40)).save(tmp_path / "train/03.png")
    (tmp_path / "train/04.png").write_bytes(b"none")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "train/05.png", exif=exif)
    source = open_coco(path, tmp_path / "train")
    batches = detection_evaluation_batches(source, IMAGES, 2, workers=0)
    with caplog.at_level(logging.WARNING, "botformer.data"):
        assert [name for batch in batches for name in batch["files"]] == ["02.png", "06.png"]
    assert batches.bad["01.png"] == "No such file or directory"
    for name, number in (("03.png", 3), ("05.png", 5)):
        assert batches.bad[name].startswith(f"is 30x40 pixels upright, its record (image id {number}) says 40x30")
    assert "not an image" in batches.bad["04.png"]
    assert "skipped 03.png" in caplog.text
    training = detection_training_batches(source, IMAGES, 6, seed=0, workers=0)
    assert set(next(training.starting_at(0))["files"]) == {"02.png", "06.png"}
    few = DetectionImages(size=48, max_bad_files=3)
    with pytest.raises(InputError, match=r"4 images of .* cannot be read, 3 are tolerated"):
        list(detection_evaluation_batches(source, few, 2, workers=0))


def test_no_objects_at_all_cannot_be_learnt_from_but_can_be_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path, content([image(1), image(2)], [annotation(1, 1, [0, 0, 9, 9], iscrowd=1)]))
    source = open_coco(path, tmp_path / "train")
    with pytest.raises(
        InputError, match=r"has no objects to learn from: the 1 annotations that can be read are all crowds"
    ):
        detection_training_batches(source, IMAGES, 2, seed=0, workers=0)
    (batch,) = detection_evaluation_batches(source, IMAGES, 2, workers=0)
    assert [len(target["boxes"]) for target in batch["targets"]] == [0, 0]


def test_a_data_set_smaller_than_a_batch_is_refused(source: DetectionDataset) -> None:
    with pytest.raises(InputError, match="has 9 images, fewer than one batch of 10"):
        detection_training_batches(source, IMAGES, 10, seed=0, workers=0)


def test_a_thousand_objects_fit_a_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    objects = []
    for number in range(1000):
        x, y = (rng.random(2) * 990 + 12).tolist()
        around = np.linspace(0, 2 * np.pi, 24)  # so many corners cover a hundredth less than an ellipse
        polygon = np.stack([x + 9 * np.cos(around), y + 12 * np.sin(around)], 1).reshape(-1).tolist()
        objects.append(annotation(number, 1, [x - 9, y - 12, 18, 24], segmentation=[polygon]))
    path = write(tmp_path, content([image(1, width=1024, height=1024)], objects))
    images = DetectionImages(size=1024, scale_jitter=(1.0, 1.0), mask_crop=112)
    batches = detection_training_batches(open_coco(path, tmp_path / "train"), images, 1, seed=0, workers=0)
    target = next(batches.starting_at(0))["targets"][0]
    assert target["mask_crops"].shape == (1000, 112, 112)
    fraction = target["mask_crops"].float().mean((1, 2))
    assert (fraction - np.pi / 4).abs().max() < 0.015
    assert target["has_mask"].all()


def test_tiles_are_not_read_ahead_where_one_image_has_gigabytes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiled = DetectionImages(size=96, tile=64)
    record = image(1, "1.png", 128, 64)  # tiles that start at 0, 32 and 64
    dataset = open_coco(write(tmp_path, content([record], [annotation(1, 1, [5, 5, 20, 20])])), tmp_path / "train")
    monkeypatch.setattr(f"{MODULE}.evaluation_loader", lambda samples, size, workers, *rest: (size, workers))
    monkeypatch.setattr(f"{MODULE}._LARGEST_READ_AHEAD", 3 * 3 * 96 * 96)
    assert detection_evaluation_batches(dataset, tiled, 4, workers=2) == (1, 2)
    monkeypatch.setattr(f"{MODULE}._LARGEST_READ_AHEAD", 3 * 3 * 96 * 96 - 1)
    assert detection_evaluation_batches(dataset, tiled, 4, workers=2) == (1, 0)
    assert detection_evaluation_batches(dataset, DetectionImages(size=96), 4, workers=2) == (4, 2)


def test_a_batch_holds_the_tiles_of_one_image_each_on_its_canvas(tmp_path: Path) -> None:
    tiled = DetectionImages(size=96, tile=64)
    record = image(1, "1.png", 128, 64)
    dataset = open_coco(write(tmp_path, content([record], [annotation(1, 1, [5, 5, 20, 20])])), tmp_path / "train")
    (batch,) = detection_evaluation_batches(dataset, tiled, 4, workers=0)
    assert batch["images"].shape == (3, 3, 96, 96)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    with Image.open(tmp_path / "train" / "1.png") as whole:
        for canvas, left in zip(batch["images"], (0, 32, 64), strict=True):
            part = whole.crop((left, 0, left + 64, 64))
            assert torch.equal(canvas, fitting_transform(part.size, (96, 96)).draw(part))


def test_a_run_notices_annotations_that_were_changed():
    """Another class, a box that was moved, another outline, another image; not the order or the ids in the file."""
    boxes = [[5, 5, 10, 8], [20, 12, 10, 8]]
    categories = [{"id": 7, "name": "cell"}, {"id": 9, "name": "dirt"}]

    def digest(change=lambda annotations: None, reverse=False):
        annotations = [annotation(number, 1 + number % 2, box, area=50) for number, box in enumerate(boxes)]
        change(annotations)
        images = [image(1), image(2)]
        data = content(images[::-1] if reverse else images, annotations[::-1] if reverse else annotations, categories)
        dataset = coco_dataset(data, "here", Path())
        return detection_training_batches(dataset, IMAGES, 1, seed=0, workers=0).data["annotations_sha256"]

    changes = [
        lambda found: found[0].update(category_id=9),
        lambda found: found[0].update(bbox=[6, 5, 10, 8]),
        lambda found: found[0].update(area=51),
        lambda found: found[0].update(image_id=2),
        lambda found: found[0].update(iscrowd=1),
    ]
    assert len({digest(), *map(digest, changes)}) == 1 + len(changes)
    assert digest(lambda found: found[0].update(id=99)) == digest() == digest(reverse=True)
