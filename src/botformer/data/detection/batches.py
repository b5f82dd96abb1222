"""Images with objects -> batches for a detector; `data.loader` says what a batch depends on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypedDict

import numpy as np
import torch
from torch import Tensor

from botformer.data.classification.batches import stack_channels_last
from botformer.data.detection.coco_reader import coco_annotations
from botformer.data.detection.dataset import DetectionDataset, ImageRecord
from botformer.data.detection.keypoints import flip_indices
from botformer.data.detection.object_sizes import say_small_objects
from botformer.data.detection.transforms import fitting_transform, random_transform, transform_objects
from botformer.data.image_io import BadImage, EncodedImage, open_image, preloaded_for
from botformer.data.loader import EvaluationLoader, TrainingLoader, evaluation_loader, training_loader
from botformer.errors import InputError
from botformer.recipes.schema import DetectionImages


class DetectionBatch(TypedDict):
    images: Tensor
    """uint8 (images, 3, size, size), channels last in memory: each image in the top left corner, 0 beyond."""
    targets: list[dict[str, Any]]
    """One per image. Always: `boxes` (n, 4) float32 xyxy in pixels of the canvas, `labels` (n,) int64 from 1 (crowds
    are background), `image_id`, `size` (height, width) of the image on its canvas, `original_size` (height, width) of
    its file, `scale` (x, y): canvas pixels per pixel of the file.
    In training: `mask_crops` (n, S, S) uint8, 0 or 1, relative to the boxes, and `has_mask` (n,) bool; or, of a data
    set opened with its key points, `keypoints` (n, K, 3) float32 x, y, v in pixels of the canvas instead.
    In evaluation: `ground_truth`, JSON text, the image's annotations in COCO's form in pixels of the file."""
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
    return training_loader(_DetectionSamples(dataset, images, True, flipped), batch_size, seed, workers, rank, world)


def detection_evaluation_batches(
    dataset: DetectionDataset, images: DetectionImages, batch_size: int, workers: int, rank: int = 0, world: int = 1
) -> EvaluationLoader[DetectionBatch]:
    """This process's part (every `world`-th image), in batches of `batch_size`, the last one smaller."""
    say_small_objects(dataset, images.canvas)
    return evaluation_loader(_DetectionSamples(dataset, images, training=False), batch_size, workers, rank, world)


_Sample = tuple[Tensor, dict[str, Any]]
"""The canvas, uint8 (3, size, size), and its target with arrays for tensors."""


@dataclass(frozen=True)
class _DetectionSamples:
    dataset: DetectionDataset
    images: DetectionImages
    training: bool
    flipped: list[int] | None = None
    """For key points: `keypoints.flip_indices`."""

    @property
    def where(self) -> str:
        return self.dataset.where

    @property
    def max_bad_files(self) -> int:
        return self.images.max_bad_files

    @property
    def preload(self) -> list[str]:
        return [__name__, *preloaded_for(self.dataset.name(0))]

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    def sample(self, index: int) -> _Sample:
        record = self.dataset.image(index)
        with (self.dataset.folder / record.file).open("rb") as file:
            image = self._open(file, record)
            if self.training:
                transform = random_transform(image.size, self.images)
                # Masks, which take far longer, are of no use to a key point detector.
                mask_crop = self.images.mask_crop if self.flipped is None else None
                target = transform_objects(record, transform, mask_crop, self.flipped)
            else:
                transform = fitting_transform(image.size, self.images.canvas)
                target = transform_objects(record, transform, None)
                target["ground_truth"] = json.dumps(coco_annotations(record, self.dataset.categories))
            target |= {
                "image_id": record.id,
                "size": transform.extent,
                "original_size": (record.height, record.width),
                "scale": transform.scale,
            }
            return transform.draw(image), target

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
            "images": stack_channels_last([image for image, _ in samples]),
            "targets": [target for _, target in samples],
            "files": [self.dataset.name(index) for index in indices],
        }

    def unpack(self, packed: dict[str, Any]) -> DetectionBatch:
        targets = [
            {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in target.items()}
            for target in packed["targets"]
        ]
        return DetectionBatch(images=packed["images"], targets=targets, files=packed["files"])
