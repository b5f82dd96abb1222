"""Labelled images -> batches for a classifier; `loader` says what a batch depends on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from botformer.data.classification.dataset import ClassificationDataset
from botformer.data.classification.transforms import Transform, evaluation_transform, training_transform
from botformer.data.image_io import open_image, preloaded_for
from botformer.data.loader import EvaluationLoader, TrainingLoader, evaluation_loader, training_loader
from botformer.recipes.schema import Images


class Batch(TypedDict):
    images: Tensor
    """uint8 (images, 3, size, size), channels last in memory."""
    labels: Tensor
    """int64 (images,)."""
    files: list[str]
    """Names in the data set."""


def training_batches(
    dataset: ClassificationDataset,
    images: Images,
    batch_size: int,
    seed: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
) -> TrainingLoader[Batch]:
    """`batch_size` counts the images of all `world` processes together. `workers`: -1 is one per core, at most 8."""
    samples = _LabelledImages(dataset, images, training_transform(images))
    return training_loader(samples, batch_size, seed, workers, rank, world)


def evaluation_batches(
    dataset: ClassificationDataset,
    images: Images,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world: int = 1,
    at_most: int = 0,
) -> EvaluationLoader[Batch]:
    """This process's shard, every `world`-th batch of `batch_size` images; the last one may be smaller.

    `at_most`: of all images only so many, evenly spread; 0: all.
    """
    samples = _LabelledImages(dataset, images, evaluation_transform(images))
    return evaluation_loader(samples, batch_size, workers, rank, world, at_most)


@dataclass(frozen=True)
class _LabelledImages:
    dataset: ClassificationDataset
    images: Images
    transform: Transform

    @property
    def where(self) -> str:
        return self.dataset.where

    @property
    def max_bad_files(self) -> int:
        return self.images.max_bad_files

    @property
    def preload(self) -> list[str]:
        timm = (
            ["timm.data.auto_augment"] if self.images.rand_augment_layers else []
        )  # takes four seconds: only if needed
        return [__name__, *timm, *self.dataset.preload, *(preloaded_for(self.dataset.name(0)) if len(self) else [])]

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return self.dataset.name(index)

    @property
    def targets(self) -> np.ndarray:
        return self.dataset.labels

    @property
    def annotations_sha256(self) -> None:
        return None

    @property
    def image_bytes(self) -> int:
        return 3 * self.images.size**2

    @property
    def weights(self) -> np.ndarray | None:
        if not self.images.balance:
            return None
        counts = np.bincount(self.dataset.labels).astype(np.float64)
        return counts[self.dataset.labels] ** -self.images.balance

    def sample(self, index: int) -> Tensor:
        """uint8 (3, size, size)."""
        file, _ = self.dataset.read(index)
        with file:
            return self.transform(open_image(file, self.dataset.name(index), self.images.max_megapixels))

    def pack(self, samples: Sequence[Tensor], indices: Sequence[int]) -> Batch:
        return Batch(
            images=stack_channels_last(samples),
            labels=torch.from_numpy(self.dataset.labels[list(indices)]),
            files=[self.dataset.name(index) for index in indices],
        )

    def unpack(self, packed: Batch) -> Batch:
        return packed


def stack_channels_last(images: Sequence[Tensor]) -> Tensor:
    """Views (3, height, width) of (height, width, 3) -> (images, 3, height, width), channels last in memory.

    Stacked in the order of memory, which takes half the time of moving every pixel.
    """
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
