"""Images with objects in them, checked: what COCO files and YOLO folders become, and what batches are made of."""

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from botformer.data.detection.keypoints import NO_KEYPOINTS, KeypointLayout, Keypoints
from botformer.data.detection.mask_targets import Box, Segmentation

ImageId = int | str
"""As the file has it: COCO's images may have numbers of any size and sign, or names."""


_FIRST = 5
"""Problems that a message has room for."""


class Category(NamedTuple):
    """A kind of object as the data set calls it. Ids may have gaps and start anywhere."""

    id: int
    name: str


@dataclass(frozen=True)
class Annotation:
    """One object, or one crowd of them."""

    id: int | str | None
    """None where the file gives it none."""
    label: int
    """1 to K: place in the dataset's categories, counted from 1."""
    box_xyxy: Box
    """Pixels; cut to the image."""
    box_xywh: Box
    """As the file has it, or around the shape where it has none that can be used."""
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

    id: ImageId
    file: str
    """Relative to the dataset's folder, with slashes."""
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    more: dict[str, Any]
    """What else the record says of the image, such as a stain or a licence: text and numbers only."""


class Problem(NamedTuple):
    """An annotation, or an image with its annotations, that was left out, wholly or in part."""

    image_id: Any
    file: str
    """Of the image; empty where nobody knows."""
    annotation_id: Any
    """Of a YOLO folder: the line of the label file. None: of the image as a whole, or it has no id."""
    reason: str
    objects: int = 1
    """That are lost with it; 0 where the object stays."""

    def __str__(self) -> str:
        file = f" ({self.file})" if self.file else ""
        return f"image {self.image_id}{file}, annotation {self.annotation_id}: {self.reason}"


NO_IMAGE = "the image is not there"
"""Why objects are left out."""


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
    crowds: int
    problems: tuple[Problem, ...]
    records: bytes
    starts: np.ndarray
    """int64 (images + 1,): where each record starts, and the end."""
    object_sizes: np.ndarray
    """float32 (objects, 2) in pixels: the shorter side of each object's box, and the longer side of its image."""
    annotations_sha256: str
    """Of which image has which objects, where, of which class."""
    layout: KeypointLayout = NO_KEYPOINTS
    """The key points of every object; empty where there are none, or where they were not read."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels from 1."""
        return tuple(category.name for category in self.categories)

    @property
    def keypoint_names(self) -> tuple[str, ...]:
        return self.layout.names

    @property
    def skeleton(self) -> tuple[tuple[int, int], ...]:
        """Pairs of places in `keypoint_names`, from 0."""
        return self.layout.skeleton

    @property
    def objects_left_out(self) -> int:
        """Objects of the files that are not in `objects`."""
        return sum(problem.objects for problem in self.problems)

    @property
    def why_no_objects(self) -> str:
        """For messages: what there is instead, and what to do."""
        if self.crowds:
            return (
                f"the {self.crowds} annotations that can be read are all crowds (iscrowd: 1), which are background in "
                "training and count neither way in evaluation; where they are single objects (CVAT exports brush masks "
                "so), set their iscrowd to 0, or export them as polygons"
            )
        left_out = f"{len(self)} images, {len(self.problems)} annotations left out"
        return f"{left_out}; annotate some, or look at what was left out{self.first_problems}"

    @property
    def first_problems(self) -> str:
        """For messages: a line each; empty where there are none."""
        return "".join(f"\n{problem}" for problem in self.problems[:_FIRST])

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
    annotations = [(image, found) for image in images for found in image.annotations]
    objects = [(image, found) for image, found in annotations if not found.crowd]
    in_order = sorted(images, key=lambda image: image.file)
    packed = [pickle.dumps(image, protocol=5) for image in in_order]
    return DetectionDataset(
        where,
        folder,
        tuple(sorted(categories)),
        len(objects),
        len(annotations) - len(objects),
        tuple(problems),
        b"".join(packed),
        np.cumsum([0, *map(len, packed)]),
        np.array([_size(image, found) for image, found in objects], dtype=np.float32).reshape(-1, 2),
        _sha256(in_order),
        layout,
    )


def _sha256(images: Sequence[ImageRecord]) -> str:
    """Areas stand for outlines: those of COCO's hundreds of thousands would take longer than reading them."""
    annotations = [(place, found) for place, image in enumerate(images) for found in image.annotations]
    shapes = [(place, each.label, each.crowd, each.area_px, *each.box_xyxy) for place, each in annotations]
    points = [value for _, each in annotations for point in each.keypoints or () for value in point]
    content = np.array(shapes, dtype=np.float64).tobytes() + np.array(points, dtype=np.float64).tobytes()
    return hashlib.sha256(content).hexdigest()


def _size(image: ImageRecord, annotation: Annotation) -> tuple[float, float]:
    x1, y1, x2, y2 = annotation.box_xyxy
    return min(x2 - x1, y2 - y1), max(image.width, image.height)
