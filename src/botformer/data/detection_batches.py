"""Pictures with objects -> batches for a detector; `dealing` says what a batch depends on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from botformer.data.batches import stack_channels_last
from botformer.data.coco import coco_annotations
from botformer.data.dealing import EvaluationBatches, TrainingBatches, evaluation_batches_of, training_batches_of
from botformer.data.decoding import BadImage, decode
from botformer.data.detection_source import DetectionSource, Picture
from botformer.data.detection_transforms import fitted_placement, place_objects, random_placement
from botformer.errors import InputError
from botformer.recipes.schema import DetectionImages


class DetectionBatch(TypedDict):
    images: Tensor
    """uint8 (pictures, 3, size, size), channels last in memory: each picture in the top left corner, 0 beyond."""
    targets: list[dict[str, Any]]
    """One a picture. Always: `boxes` (n, 4) float32 xyxy in pixels of the canvas, `labels` (n,) int64 from 1 (crowds
    are background), `image_id`, `size` (height, width) of the picture on its canvas, `original_size` (height, width) of
    its file, `scale` (x, y): canvas pixels a pixel of the file.
    In training: `mask_crops` (n, S, S) uint8, 0 or 1, relative to the boxes, and `has_mask` (n,) bool.
    In evaluation: `ground_truth`, JSON text, the picture's annotations in COCO's form in pixels of the file."""
    files: list[str]
    """Names in the source."""


def detection_training_batches(
    source: DetectionSource,
    images: DetectionImages,
    batch_size: int,
    seed: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> TrainingBatches[DetectionBatch]:
    """`batch_size` counts the pictures of all `world` processes together. `workers`: -1 is one a core, at most 8."""
    if not source.objects:
        raise InputError(
            f"{source.where} has no objects to learn from: {len(source)} pictures, {len(source.problems)} annotations "
            "left out; annotate some, or look at what was left out"
        )
    return training_batches_of(_Pictures(source, images, training=True), batch_size, seed, workers, rank, world)


def detection_evaluation_batches(
    source: DetectionSource, images: DetectionImages, batch_size: int, workers: int, rank: int = 0, world: int = 1
) -> EvaluationBatches[DetectionBatch]:
    """This process's share (every `world`-th picture), in batches of `batch_size`, the last one smaller."""
    return evaluation_batches_of(_Pictures(source, images, training=False), batch_size, workers, rank, world)


_Sample = tuple[Tensor, dict[str, Any]]
"""The canvas, uint8 (3, size, size), and its target with arrays for tensors."""


@dataclass(frozen=True)
class _Pictures:
    source: DetectionSource
    images: DetectionImages
    training: bool

    @property
    def where(self) -> str:
        return self.source.where

    @property
    def max_bad_files(self) -> int:
        return self.images.max_bad_files

    @property
    def preload(self) -> list[str]:
        return [__name__]

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def sample(self, index: int) -> _Sample:
        record = self.source.picture(index)
        picture = self._read(record)
        if self.training:
            placement = random_placement(picture.size, self.images)
            target = place_objects(record, placement, self.images.mask_crop)
        else:
            placement = fitted_placement(picture.size, self.images.canvas)
            target = place_objects(record, placement, None)
            target["ground_truth"] = json.dumps(coco_annotations(record, self.source.categories))
        target |= {
            "image_id": record.id,
            "size": placement.extent,
            "original_size": (record.height, record.width),
            "scale": placement.scale,
        }
        return placement.draw(picture), target

    def _read(self, record: Picture) -> Image.Image:
        picture = decode(self.source.folder / record.file, record.file, self.images.max_megapixels)
        if picture.size != (record.width, record.height):
            raise BadImage(
                record.file,
                f"is {picture.width}x{picture.height} pixels upright, its record (image id {record.id}) says "
                f"{record.width}x{record.height}: boxes would not fit",
            )
        return picture

    def pack(self, samples: Sequence[_Sample], indices: Sequence[int]) -> dict[str, Any]:
        # Targets travel as arrays. Each tensor would hold a file open until it is used, and there are dozens a batch.
        return {
            "images": stack_channels_last([image for image, _ in samples]),
            "targets": [target for _, target in samples],
            "files": [self.source.name(index) for index in indices],
        }

    def unpack(self, packed: dict[str, Any]) -> DetectionBatch:
        targets = [
            {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in target.items()}
            for target in packed["targets"]
        ]
        return DetectionBatch(images=packed["images"], targets=targets, files=packed["files"])
