"""Labelled images -> batches for a classifier; `dealing` says what a batch depends on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from botformer.data.classification.dataset import ClassificationDataset
from botformer.data.classification.transforms import Transform, evaluation_transform, training_transform
from botformer.data.image_io import decode
from botformer.data.loader import EvaluationLoader, TrainingLoader, evaluation_loader, training_loader
from botformer.recipes.schema import Images


class Batch(TypedDict):
    images: Tensor
    """uint8 (images, 3, size, size), channels last in memory."""
    labels: Tensor
    """int64 (images,)."""
    files: list[str]
    """Names in the source."""


def training_batches(
    source: ClassificationDataset,
    images: Images,
    batch_size: int,
    seed: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> TrainingLoader[Batch]:
    """`batch_size` counts the images of all `world` processes together. `workers`: -1 is one a core, at most 8."""
    samples = _LabelledImages(source, images, training_transform(images))
    return training_loader(samples, batch_size, seed, workers, rank, world)


def evaluation_batches(
    source: ClassificationDataset, images: Images, batch_size: int, workers: int, rank: int = 0, world: int = 1
) -> EvaluationLoader[Batch]:
    """This process's share (every `world`-th image), in batches of `batch_size`, the last one smaller."""
    samples = _LabelledImages(source, images, evaluation_transform(images))
    return evaluation_loader(samples, batch_size, workers, rank, world)


@dataclass(frozen=True)
class _LabelledImages:
    source: ClassificationDataset
    images: Images
    transform: Transform

    @property
    def where(self) -> str:
        return self.source.where

    @property
    def max_bad_files(self) -> int:
        return self.images.max_bad_files

    @property
    def preload(self) -> list[str]:
        timm = ["timm.data.auto_augment"] if self.images.rand_augment_layers else []  # four seconds: only if needed
        return [__name__, *timm]

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def sample(self, index: int) -> Tensor:
        """uint8 (3, size, size)."""
        file, _ = self.source.read(index)
        with file:
            return self.transform(decode(file, self.source.name(index), self.images.max_megapixels))

    def pack(self, samples: Sequence[Tensor], indices: Sequence[int]) -> Batch:
        return Batch(
            images=stack_channels_last(samples),
            labels=torch.from_numpy(self.source.labels[list(indices)]),
            files=[self.source.name(index) for index in indices],
        )

    def unpack(self, packed: Batch) -> Batch:
        return packed


def stack_channels_last(images: Sequence[Tensor]) -> Tensor:
    """Views (3, height, width) of (height, width, 3) -> (images, 3, height, width), channels last in memory.

    Stacked the way they lie in memory: half the time of moving every pixel.
    """
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
