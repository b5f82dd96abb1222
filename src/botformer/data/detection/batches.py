"""Images with objects -> batches for a detector; `data.loader` says what a batch depends on."""

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from botformer.data.detection.coco_reader import coco_annotations
from botformer.data.detection.copy_paste import paste_objects
from botformer.data.detection.dataset import DetectionDataset, ImageRecord
from botformer.data.detection.keypoints import flip_indices
from botformer.data.detection.object_sizes import say_small_objects
from botformer.data.detection.repeat_factors import repeat_factors
from botformer.data.detection.transforms import CanvasTransform, fitting_transform, random_transform, transform_objects
from botformer.data.image_io import BadImage, EncodedImage, open_image, preloaded_for
from botformer.data.loader import EvaluationLoader, TrainingLoader, evaluation_loader, training_loader
from botformer.errors import InputError
from botformer.read_file import open_file
from botformer.recipes.schema import DetectionImages
from botformer.text import and_more
from botformer.tile_grid import tile_grid

log = logging.getLogger("botformer.data")

_LARGEST_READ_AHEAD = 2**28
"""Bytes of a batch that workers prepare while the network is busy with others: each of them keeps several."""


class DetectionBatch(TypedDict):
    images: Tensor
    """uint8 (images, 3, size, size), channels last in memory: each image in the top left corner, 0 beyond. Where
    evaluation is in tiles: as many canvases for an image as it has tiles."""
    targets: list[dict[str, Any]]
    """One per image. Always: `boxes` (n, 4) float32 xyxy in pixels of the canvas, `labels` (n,) int64 from 1 (crowds
    are background), `image_id`, `size` (height, width) of the image on its canvas, `original_size` (height, width) of
    its file, `scale` (x, y): canvas pixels per pixel of the file.
    In training: `mask_crops` (n, S, S) uint8, 0 or 1, relative to the boxes, and `has_mask` (n,) bool; or, of a data
    set opened with its key points, `keypoints` (n, K, 3) float32 x, y, v in pixels of the canvas instead.
    In evaluation: `ground_truth`, JSON text, the image's annotations in COCO's form in pixels of the file. Of an image
    in tiles also `tile_px`, their side in pixels of the file, and `tile_sizes`, (height, width) of each on its canvas;
    `boxes`, `labels`, `size` and `scale` are then those of the first tile."""
    files: list[str]
    """Names in the dataset."""


def detection_training_batches(
    dataset: DetectionDataset,
    images: DetectionImages,
    batch_size: int,
    seed: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> TrainingLoader[DetectionBatch]:
    """`batch_size` counts the images of all `world` processes together. `workers`: -1 is one per core, at most 8."""
    if not dataset.objects:
        raise InputError(f"{dataset.where} has no objects to learn from: {dataset.why_no_objects}")
    low, high = images.scale_jitter
    say_small_objects(dataset, images.size * min(max(low, 1.0), high))
    names = dataset.keypoint_names
    flipped = flip_indices(names, images.keypoint_pairs) if names else None
    if flipped and images.hflip:
        _say_exchanged(names, flipped)
    weights = repeat_factors(dataset, images.repeat_threshold) if images.repeat_threshold else None
    samples = _DetectionSamples(dataset, images, True, (images.size, images.size), flipped, weights)
    return training_loader(samples, batch_size, seed, workers, rank, world)


def _say_exchanged(names: Sequence[str], flipped: Sequence[int]) -> None:
    pairs = [f"{names[place]} and {names[other]}" for place, other in enumerate(flipped) if place < other]
    if pairs or len(names) == 1:
        log.info("a flip exchanges %s (images.keypoint_pairs)", and_more(pairs, 10) or "no key points")
        return
    log.warning(
        "a flip of the image exchanges no key points: no names of theirs say left and right. If some are each other's "
        "mirror image, name them (--images.keypoint-pairs LEFT RIGHT); or train without flips (--images.no-hflip)"
    )


def detection_evaluation_batches(
    dataset: DetectionDataset,
    images: DetectionImages,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    at_most: int = 0,
    canvas: tuple[int, int] | None = None,
) -> EvaluationLoader[DetectionBatch]:
    """This process's part, every `world`-th batch of `batch_size` images, the last one smaller. `at_most`: of all
    images only so many, evenly spread; 0: all. `canvas`: its (height, width), `images.canvas` a side by default. In
    tiles (`images.tile`) a batch is one image, which no worker reads ahead where the tiles of the largest image take
    more than 256 MiB."""
    canvas = canvas or (images.canvas, images.canvas)
    say_small_objects(dataset, max(canvas), images.tile)
    samples = _DetectionSamples(dataset, images, False, canvas)
    if images.tile:
        batch_size = 1
        if _largest_batch(dataset, images.tile, canvas) > _LARGEST_READ_AHEAD:
            workers = 0
    return evaluation_loader(samples, batch_size, workers, rank, world, at_most)


def _largest_batch(dataset: DetectionDataset, tile: int, canvas: tuple[int, int]) -> int:
    """Bytes of the tiles of one image."""
    sizes = {(record.height, record.width) for record in map(dataset.image, range(len(dataset)))}
    return max((len(tile_grid(size, tile)) for size in sizes), default=0) * _bytes(canvas)


def _bytes(canvas: tuple[int, int]) -> int:
    return 3 * canvas[0] * canvas[1]


_Sample = tuple[Tensor, dict[str, Any]]
"""The canvases, uint8 (n, height, width, 3), one or those of the tiles, and the target with arrays for tensors."""


@dataclass(frozen=True, eq=False)
class _DetectionSamples:
    dataset: DetectionDataset
    images: DetectionImages
    training: bool
    canvas: tuple[int, int]
    """(height, width)."""
    flipped: list[int] | None = None
    """For key points: `keypoints.flip_indices`."""
    weights: np.ndarray | None = None
    """As in `Samples`."""

    @property
    def where(self) -> str:
        return self.dataset.where

    @property
    def max_bad_files(self) -> int:
        return self.images.max_bad_files

    @property
    def targets(self) -> np.ndarray:
        return self.dataset.object_sizes

    @property
    def annotations_sha256(self) -> str:
        return self.dataset.annotations_sha256

    @property
    def image_bytes(self) -> int:
        return _bytes(self.canvas)

    @property
    def preload(self) -> list[str]:
        return [__name__, *preloaded_for(self.dataset.name(0))]

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def sample(self, index: int) -> _Sample:
        record = self.dataset.image(index)
        with open_file(self.dataset.folder / record.file) as file:
            image = self._open(file, record)
            if self.training:
                transform, canvas, target = self._augmented(record, image)
                canvases = canvas.permute(1, 2, 0)[None]
            else:
                parts = self._parts(image)
                transforms = [fitting_transform(part.size, self.canvas) for part in parts]
                transform = transforms[0]
                canvases = torch.empty((len(parts), *self.canvas, 3), dtype=torch.uint8)
                for place, (each, part) in enumerate(zip(transforms, parts, strict=True)):
                    canvases[place] = each.draw(part).permute(1, 2, 0)
                target = transform_objects(record, transform, None)
                target["ground_truth"] = json.dumps(coco_annotations(record, self.dataset.categories))
                if len(parts) > 1:
                    target |= {"tile_px": self.images.tile, "tile_sizes": [each.extent for each in transforms]}
        if self.training and self.flipped is None and random.random() < self.images.copy_paste:
            target = self._with_pasted(canvases[0].permute(2, 0, 1), target, transform.extent)
        target |= {
            "image_id": record.id,
            "size": transform.extent,
            "original_size": (record.height, record.width),
            "scale": transform.scale,
        }
        return canvases, target

    def _augmented(self, record: ImageRecord, image: EncodedImage) -> tuple[CanvasTransform, Tensor, dict[str, Any]]:
        objects = [found.box_xyxy for found in record.annotations if not found.crowd]
        transform = random_transform(image.size, self.images, objects)
        # Masks, which take far longer, are of no use to a key point detector.
        mask_crop = self.images.mask_crop if self.flipped is None else None
        return transform, transform.draw(image), transform_objects(record, transform, mask_crop, self.flipped)

    def _with_pasted(self, canvas: Tensor, target: dict[str, Any], extent: tuple[int, int]) -> dict[str, Any]:
        """The target of the canvas with objects of any other image on it; as it is where that one has no shapes."""
        record = self.dataset.image(random.randrange(len(self.dataset)))
        if all(found.crowd or found.segmentation is None for found in record.annotations):
            return target
        try:
            with open_file(self.dataset.folder / record.file) as file:
                _, source, source_target = self._augmented(record, self._open(file, record))
        except (BadImage, OSError):  # counted when it is this image's turn
            return target
        return paste_objects(canvas, target, extent, source, source_target)

    def _parts(self, image: EncodedImage) -> list[EncodedImage] | list[Image.Image]:
        """The image, or its tiles."""
        tiles = tile_grid((image.height, image.width), self.images.tile) if self.images.tile else []
        if len(tiles) < 2:
            return [image]
        decoded = image.by_pillow()
        return [decoded.crop(tile) for tile in tiles]

    def _open(self, file: BinaryIO, record: ImageRecord) -> EncodedImage:
        image = open_image(file, record.file, self.images.max_megapixels)
        if image.size != (record.width, record.height):
            raise BadImage(
                record.file,
                f"is {image.width}x{image.height} pixels upright, its record (image id {record.id}) says "
                f"{record.width}x{record.height}: boxes would not fit",
            )
        return image

    def pack(self, samples: Sequence[_Sample], indices: Sequence[int]) -> dict[str, Any]:
        # Targets travel as arrays. Each tensor would hold a file open until it is used, and there are dozens per batch.
        return {
            # The tiles of a large image take gigabytes: they are not copied.
            "images": (samples[0][0] if len(samples) == 1 else torch.cat([each for each, _ in samples])).permute(
                0, 3, 1, 2
            ),
            "targets": [target for _, target in samples],
            "files": [self.dataset.name(index) for index in indices],
        }

    def unpack(self, packed: dict[str, Any]) -> DetectionBatch:
        targets = [
            {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in target.items()}
            for target in packed["targets"]
        ]
        return DetectionBatch(images=packed["images"], targets=targets, files=packed["files"])
