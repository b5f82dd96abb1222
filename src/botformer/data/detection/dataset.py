"""Images with objects in them, checked: what COCO files and YOLO folders become, and what batches are made of."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from botformer.data.detection.keypoints import NO_KEYPOINTS, KeypointLayout, Keypoints
from botformer.data.detection.mask_targets import Box, Segmentation


class Category(NamedTuple):
    """A kind of object as the data set calls it. Ids may have gaps and start anywhere."""

    id: int
    name: str


@dataclass(frozen=True)
class Annotation:
    """One object, or one crowd of them."""

    id: int
    label: int
    """1 to K: place in the dataset's categories, counted from 1."""
    box_xyxy: Box
    """Pixels; cut to the image."""
    box_xywh: Box
    """As the file has it."""
    area_px: float
    """Of the shape where there is one; decides what counts as small, medium, large."""
    crowd: bool
    segmentation: Segmentation | None
    keypoints: Keypoints | None = None
    """K points, where they were read; all (0, 0, 0) where the object has none."""
    num_keypoints: int = 0
    """Labelled ones, as the file says; an object without any counts neither way where key points are measured."""


@dataclass(frozen=True)
class ImageRecord:
    """An image's record."""

    id: int
    file: str
    """Relative to the dataset's folder, with slashes."""
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    more: dict[str, Any]
    """What else the record says of the image, such as a stain or a licence: text and numbers only."""


class Problem(NamedTuple):
    """An annotation that was left out, wholly or in part."""

    image_id: Any
    file: str
    """Of the image; empty where nobody knows."""
    annotation_id: Any
    """Of a YOLO folder: the line of the label file."""
    reason: str

    def __str__(self) -> str:
        file = f" ({self.file})" if self.file else ""
        return f"image {self.image_id}{file}, annotation {self.annotation_id}: {self.reason}"


@dataclass(frozen=True)
class DetectionDataset:
    """Images in a fixed order (by file name), the same on every machine. `where` is for messages.

    The records are kept as one block of bytes: it goes to worker processes at the speed of a copy, where a million
    objects would take each of them half a minute.
    """

    where: str
    folder: Path
    categories: tuple[Category, ...]
    """By id. The label of the first is 1."""
    objects: int
    """Of all images together; crowds are not counted."""
    problems: tuple[Problem, ...]
    records: bytes
    starts: np.ndarray
    """int64 (images + 1,): where each record starts, and the end."""
    layout: KeypointLayout = NO_KEYPOINTS
    """The key points of every object; empty where there are none, or where they were not read."""

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        return self.layout.names

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of places in `keypoint_names`, from 0."""
        return self.layout.skeleton

    def __len__(self) -> int:
        return len(self.starts) - 1

    def image(self, index: int) -> ImageRecord:
        # Bytes that `make_dataset` made, never any from a file.
        return pickle.loads(self.records[self.starts[index] : self.starts[index + 1]])

    def name(self, index: int) -> str:
        return self.image(index).file


def make_dataset(
    where: str,
    folder: Path,
    categories: Sequence[Category],
    images: Sequence[ImageRecord],
    problems: Sequence[Problem],
    layout: KeypointLayout = NO_KEYPOINTS,
) -> DetectionDataset:
    """A dataset of these images, sorted by file name."""
    packed = [pickle.dumps(image, protocol=5) for image in sorted(images, key=lambda image: image.file)]
    return DetectionDataset(
        where,
        folder,
        tuple(sorted(categories)),
        sum(not annotation.crowd for image in images for annotation in image.annotations),
        tuple(problems),
        b"".join(packed),
        np.cumsum([0, *map(len, packed)]),
        layout,
    )
