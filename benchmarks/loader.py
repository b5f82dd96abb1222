"""Images per second of one thread: botformer's loader beside timm's and torchvision's, on the same JPEG files.

python benchmarks/loader.py [--data DIR] [--rounds 7]    writes results/loader_cpu.json

Without --data the files are mosaics of the photographs in the scikit-image and scikit-learn wheels, at quality 90. DIR
has folders of images (DIR/CLASS/*.jpg), of which all sizes are timed together.

All loaders read the same files in random order, take a random part, resample it with the same filter, flip half of
them, and give batches of bytes: normalising is the device's work. In detection they scale, crop and pad to the canvas
and move five boxes per image along.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset, create_transform
from timm.data.loader import fast_collate
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms as v1
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from botformer.benchmark.receipt import write_receipt
from botformer.benchmark.timing import ratio
from botformer.data.classification.batches import evaluation_batches, training_batches
from botformer.data.classification.dataset import open_classification_dataset
from botformer.data.detection.batches import detection_training_batches
from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.synthetic.digits import crop_photograph, read_parts
from botformer.recipes.schema import DetectionImages, Images

PX, CANVAS, BOXES, TILE_PX = 224, 1024, 5, 500
CLASSES = ("a", "b")
SCALES = (0.8, 1.25)
BICUBIC, BILINEAR = v1.InterpolationMode.BICUBIC, v1.InterpolationMode.BILINEAR
OURS, TIMM = "botformer", "timm"
TV_PILLOW, TV_TENSORS = "torchvision, Pillow", "torchvision, tensors"
NOTES = (
    "Medians of turns of several batches each, one thread; ratio: time relative to botformer's. No loader normalises. "
    "timm: ImageDataset, create_transform and fast_collate, as its create_loader puts them together for a GPU. "
    "torchvision: ImageFolder with transforms v1 on Pillow's images, and with decode_image and transforms v2 on "
    "tensors; in detection its ScaleJitter, RandomCrop and RandomHorizontalFlip. timm has no detection loader."
)


@dataclass(frozen=True)
class Case:
    size: tuple[int, int]
    """(width, height) of the files."""
    files: int
    mode: str
    batch: int


CASES = (
    Case((500, 400), 128, "training", 32),
    Case((500, 400), 128, "evaluation", 32),
    Case((1280, 960), 32, "training", 16),
    Case((4000, 3000), 8, "training", 4),
    Case((640, 480), 64, "detection", 8),
    Case((4000, 3000), 8, "detection", 4),
)

Batches = Iterator[torch.Tensor]
Loader = Callable[[Path, int, int], Batches]
"""(folder, batch size, workers) -> endless batches of images, uint8 (batch, 3, height, width)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results/loader_cpu.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in CASES if given.data is None else [case for case in CASES if case.size == (500, 400)]:
            folder = given.data or write_files(Path(temporary), case)
            for workers in (0, 1):
                rows += time_case(case, folder, workers, given.rounds, own_files=given.data is not None)
    command = f"python benchmarks/loader.py{' --data DIR' if given.data else ''}"
    title = "Loaders on one thread: images per second"
    write_receipt(given.out, title, command, rows, 0, NOTES, {"threads": 1})


def time_case(case: Case, folder: Path, workers: int, rounds: int, own_files: bool) -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {name: [] for name in LOADERS[case.mode]}
    names = list(times)
    for round_ in range(rounds + 1):
        start = round_ % len(names)
        for name in names[start:] + names[:start]:
            ms = turn(LOADERS[case.mode][name], case, folder, workers)
            if round_:  # the first one reads the files into the system's memory
                times[name].append(ms)
    labels = {"files": "given" if own_files else f"{case.size[0]}x{case.size[1]}", "mode": case.mode}
    rows = []
    for name, taken in times.items():
        ms = statistics.median(taken)
        figures = {
            "ms": round(ms, 3),
            "images_per_second": round(1e3 / ms),
            "ratio": round(ratio(taken, times[OURS]), 3),
        }
        rows.append(labels | {"workers": workers, "implementation": name} | figures)
        print(rows[-1], flush=True)
    return rows


def turn(loader: Loader, case: Case, folder: Path, workers: int) -> float:
    """Milliseconds per image, once the workers have started."""
    size = CANVAS if case.mode == "detection" else PX
    batches = loader(folder, case.batch, workers)
    count = max(2, 64 // case.batch)
    check(next(batches), case.batch, size)
    started = perf_counter()
    for images in islice(batches, count):
        check(images, case.batch, size)
    ms = (perf_counter() - started) * 1e3 / (count * case.batch)
    del batches  # ends the workers
    return ms


def check(images: torch.Tensor, batch: int, size: int) -> None:
    assert images.shape == (batch, 3, size, size), images.shape
    assert images.dtype == torch.uint8


# Files


def write_files(folder: Path, case: Case) -> Path:
    """FOLDER/SIZE/CLASS/*.jpg: mosaics of crops at about their photographs' scale, which compress as photographs do."""
    width, height = case.size
    root = folder / f"{width}x{height}"
    if root.exists():
        return root
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    photographs = read_parts("train").photographs
    for number in range(case.files):
        rng = np.random.default_rng(number)
        rows = [
            np.concatenate([_tile(photographs, rng) for _ in range(0, width, TILE_PX)], axis=1)
            for _ in range(0, height, TILE_PX)
        ]
        image = np.concatenate(rows)[:height, :width]
        Image.fromarray(image).save(root / CLASSES[number % 2] / f"{number:04d}.jpg", quality=90)
    return root


def _tile(photographs: tuple[Image.Image, ...], rng: np.random.Generator) -> np.ndarray:
    return crop_photograph(photographs[rng.integers(len(photographs))], TILE_PX, rng)


def jpeg_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def boxes_of(width: int, height: int) -> np.ndarray:
    """float (5, 4) xyxy, the same in every image."""
    left, top = np.linspace(0, width * 0.6, BOXES), np.linspace(0, height * 0.6, BOXES)
    return np.stack([left, top, left + width * 0.3, top + height * 0.3], axis=1)


# botformer


def ours_training(folder: Path, batch: int, workers: int) -> Batches:
    dataset = open_classification_dataset(str(folder), "")
    for step in training_batches(dataset, Images(size=PX), batch, seed=0, workers=workers).starting_at(0):
        yield step["images"]


def ours_evaluation(folder: Path, batch: int, workers: int) -> Batches:
    dataset = open_classification_dataset(str(folder), "")
    for step in evaluation_batches(dataset, Images(size=PX), batch, workers=workers):
        yield step["images"]


def ours_detection(folder: Path, batch: int, workers: int) -> Batches:
    images, annotations = [], []
    for number, file in enumerate(jpeg_files(folder)):
        with Image.open(file) as image:
            width, height = image.size
        name = file.relative_to(folder).as_posix()
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for left, top, right, bottom in boxes_of(width, height).tolist():
            place = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            size = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
            annotations.append(place | size)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    dataset = coco_dataset(json.loads(json.dumps(content)), str(folder), folder)
    settings = DetectionImages(size=CANVAS, scale_jitter=SCALES)
    for step in detection_training_batches(dataset, settings, batch, seed=0, workers=workers).starting_at(0):
        yield step["images"]


# timm and torchvision


class Endless(Sampler[int]):
    """Shuffled anew whenever all have come."""

    def __init__(self, images: int) -> None:
        self.images = images

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from random.sample(range(self.images), self.images)


def batches_of(
    dataset: Dataset, images: int, batch: int, workers: int, collate: Callable | None = None, shuffled: bool = True
) -> Batches:
    sampler = Endless(images) if shuffled else range(images)
    loader = DataLoader(dataset, batch, sampler=sampler, num_workers=workers, collate_fn=collate)
    for pixels, _ in loader:
        yield pixels


def timm_loader(folder: Path, batch: int, workers: int, training: bool) -> Batches:
    transform = create_transform(
        PX, is_training=training, interpolation="bicubic", color_jitter=None, use_prefetcher=True, crop_pct=0.875
    )
    dataset = ImageDataset(str(folder), transform=transform)
    return batches_of(dataset, len(dataset), batch, workers, fast_collate, training)


def torchvision_pillow(folder: Path, batch: int, workers: int, training: bool) -> Batches:
    part = (
        [v1.RandomResizedCrop(PX, interpolation=BICUBIC), v1.RandomHorizontalFlip()]
        if training
        else [v1.Resize(int(PX / 0.875), BICUBIC), v1.CenterCrop(PX)]
    )
    dataset = ImageFolder(str(folder), v1.Compose([*part, v1.PILToTensor()]))
    return batches_of(dataset, len(dataset), batch, workers, shuffled=training)


def torchvision_tensors(folder: Path, batch: int, workers: int, training: bool) -> Batches:
    part = (
        [v2.RandomResizedCrop(PX, interpolation=BICUBIC, antialias=True), v2.RandomHorizontalFlip()]
        if training
        else [v2.Resize(int(PX / 0.875), BICUBIC, antialias=True), v2.CenterCrop(PX)]
    )
    dataset = ImageFolder(str(folder), v2.Compose(part), loader=read_tensor)
    return batches_of(dataset, len(dataset), batch, workers, shuffled=training)


def read_tensor(file: str) -> torch.Tensor:
    return decode_image(file, mode=ImageReadMode.RGB)


def read_pillow(file: str) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")


class BoxedImages(Dataset):
    """torchvision's transforms on an image and its boxes."""

    def __init__(self, folder: Path, read: Callable[[str], Any], last: list[Any]) -> None:
        self.files, self.read = jpeg_files(folder), read
        self.transform = v2.Compose(
            [
                v2.ScaleJitter((CANVAS, CANVAS), SCALES, interpolation=BILINEAR, antialias=True),
                v2.RandomCrop(CANVAS, pad_if_needed=True),
                v2.RandomHorizontalFlip(),
                v2.SanitizeBoundingBoxes(),
                *last,
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        image = self.read(str(self.files[index]))
        width, height = image.size if isinstance(image, Image.Image) else (image.shape[2], image.shape[1])
        boxes = tv_tensors.BoundingBoxes(boxes_of(width, height), format="XYXY", canvas_size=(height, width))  # type: ignore[call-overload]
        labels = torch.ones(BOXES, dtype=torch.int64)
        image = image if isinstance(image, Image.Image) else tv_tensors.Image(image)
        return self.transform(image, {"boxes": boxes, "labels": labels})


def stack_images(samples: list[tuple[torch.Tensor, dict[str, Any]]]) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    return torch.stack([image for image, _ in samples]), [target for _, target in samples]


def torchvision_detection(folder: Path, batch: int, workers: int, tensors: bool) -> Batches:
    dataset = BoxedImages(folder, read_tensor, []) if tensors else BoxedImages(folder, read_pillow, [v2.PILToTensor()])
    return batches_of(dataset, len(dataset), batch, workers, stack_images)


LOADERS: dict[str, dict[str, Loader]] = {
    "training": {
        OURS: ours_training,
        TIMM: partial(timm_loader, training=True),
        TV_PILLOW: partial(torchvision_pillow, training=True),
        TV_TENSORS: partial(torchvision_tensors, training=True),
    },
    "evaluation": {
        OURS: ours_evaluation,
        TIMM: partial(timm_loader, training=False),
        TV_PILLOW: partial(torchvision_pillow, training=False),
        TV_TENSORS: partial(torchvision_tensors, training=False),
    },
    "detection": {
        OURS: ours_detection,
        TV_PILLOW: partial(torchvision_detection, tensors=False),
        TV_TENSORS: partial(torchvision_detection, tensors=True),
    },
}

if __name__ == "__main__":
    main()
