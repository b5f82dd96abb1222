"""What is in a folder of images: which task it is for, how many there are, and what they are like."""

import logging
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from botformer.data.classification.dataset import (
    ClassificationDataset,
    has_test_split,
    open_classification_dataset,
    open_classification_datasets,
)
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import (
    has_annotated_test_split,
    has_keypoints,
    has_shapes,
    is_annotated,
    open_detection_dataset,
    open_detection_datasets,
)
from botformer.data.loader import evenly_spread
from botformer.data.mirrored_names import class_with_sides
from botformer.errors import InputError
from botformer.recipes.detector_settings import Kind

log = logging.getLogger("botformer.planning")

Verb = Literal["classify", "segment", "detect", "keypoints"]
DETECTORS: dict[Verb, Kind] = {"segment": "mask_rcnn", "detect": "faster_rcnn", "keypoints": "keypoint_rcnn"}

_LOOKED_AT = 200
"""Images whose size is read, evenly spread: the median of 200 is known to about 5 % of rank."""


@dataclass(frozen=True)
class Found:
    """A data set, opened, and what it is for."""

    verb: Verb
    train: ClassificationDataset | DetectionDataset
    validation: ClassificationDataset | DetectionDataset
    test: int
    """Images of a test split that is not what training is validated on; 0: there is none."""
    summary: str
    """For people."""
    open_s: float
    """How long it took to open."""


@dataclass(frozen=True)
class ImageFacts:
    """What rules about classifiers are made of."""

    classes: int
    images: int
    """To train on."""
    most: int
    """Images of the largest class."""
    fewest: int
    """Images of the smallest class."""
    shorter_px: int
    """Median shorter side."""
    long: float
    """Fraction of the images that are at least twice as long as wide, or as wide as long."""
    has_sides: str
    """A class that an image flipped left to right would show wrongly. Empty: none."""


def look(data: str, asked: Verb | Literal["auto"], max_bad_records: int = 20) -> Found:
    """Open `data` as what was asked for; "auto" takes key points before shapes, and shapes before boxes. `segment`
    where no object has a shape is read as `detect`, which the summary says.

    Raises:
        InputError: data for another verb, naming that verb; or that nothing can be learnt from.
    """
    begin = time.monotonic()
    with _quiet():
        if is_annotated(data):
            return _annotated(data, asked, begin, max_bad_records)
        return _labelled(data, asked, begin)


def image_facts(dataset: ClassificationDataset) -> ImageFacts:
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    counts = counts[counts > 0]
    sizes = [size for index in evenly_spread(len(dataset), _LOOKED_AT) if (size := _size(dataset, index))]
    return ImageFacts(
        classes=len(dataset.class_names),
        images=len(dataset),
        most=int(counts.max()),
        fewest=int(counts.min()),
        shorter_px=int(np.median([min(size) for size in sizes])) if sizes else 0,
        long=sum(max(size) >= 2 * min(size) for size in sizes) / max(len(sizes), 1),
        has_sides=class_with_sides(dataset.class_names),
    )


def _labelled(data: str, asked: str, begin: float) -> Found:
    try:
        train, validation = open_classification_datasets(data)
    except InputError as error:
        if asked in ("auto", "classify"):
            raise
        raise InputError(f"{data} has no annotations of objects for `botformer train {asked}`: {error}") from None
    if asked not in ("auto", "classify"):
        raise InputError(
            f"{data} holds images in class folders ({len(train.class_names)} classes), without boxes or masks: use "
            f"botformer train classify --data {shlex.quote(data)}"
        )
    test = _test_images(lambda: len(open_classification_dataset(data, "test")) if has_test_split(data) else 0)
    summary = (
        f"{len(train):,} images of {len(train.class_names)} classes to train on, {len(validation):,} to validate on"
        + (f", {test:,} to test on" if test else "")
    )
    return Found("classify", train, validation, test, summary, time.monotonic() - begin)


def _annotated(data: str, asked: str, begin: float, max_bad_records: int) -> Found:
    if asked == "classify":
        verb = _annotated(data, "auto", begin, max_bad_records).verb
        raise InputError(
            f"{data} holds objects with boxes, not images in class folders: use botformer train {verb} "
            f"--data {shlex.quote(data)}"
        )
    left_out = ""
    try:
        train, validation = open_detection_datasets(data, asked in ("auto", "keypoints"), max_bad_records)
    except InputError as error:
        if asked != "auto":
            raise
        train, validation = open_detection_datasets(data, max_bad_records=max_bad_records)
        left_out = f"; key points are left out: {error}"
    points = bool(train.keypoint_names) and has_keypoints(train)
    shapes = has_shapes(train)
    verb: Verb = "keypoints" if points and asked in ("auto", "keypoints") else "segment" if shapes else "detect"
    if asked == "keypoints" and not points:
        raise InputError(
            f"no object of {train.where} has key points: use botformer train {verb} --data {shlex.quote(data)}"
        )
    if asked == "detect":
        verb = "detect"
    if asked == "auto" and verb != "keypoints":
        train, validation = open_detection_datasets(data, max_bad_records=max_bad_records)

    def annotated() -> int:
        if not has_annotated_test_split(data):
            return 0
        test_set = open_detection_dataset(data, "test", verb == "keypoints", max_bad_records)
        return len(test_set) if test_set.objects else 0

    test = _test_images(annotated)
    what = {"keypoints": "objects with key points", "segment": "objects with shapes", "detect": "boxes"}[verb]
    summary = (
        f"{len(train):,} images with {train.objects:,} {what} of {len(train.categories)} "
        f"{'category' if len(train.categories) == 1 else 'categories'} to train on, {len(validation):,} to validate on"
        + (f", {test:,} to test on" if test else "")
    )
    summary += left_out
    if asked == "segment" and verb == "detect":
        summary += "; none of the objects has a shape, so boxes are learnt (faster_rcnn)"
    return Found(verb, train, validation, test, summary, time.monotonic() - begin)


def _test_images(count: Callable[[], int]) -> int:
    """0 where they cannot be read: nobody needs them to train."""
    try:
        return count()
    except InputError as error:
        log.warning("the test split is left out: %s", error)
        return 0


def _size(dataset: ClassificationDataset, index: int) -> tuple[int, int] | None:
    """From the header alone; None where it cannot be read, which the loader will say."""
    try:
        file, _ = dataset.read(index)
        with file, Image.open(file) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """The data are opened again to be trained on, and what there is to say of them is said then."""
    data_log = logging.getLogger("botformer.data")
    level = data_log.level
    data_log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        data_log.setLevel(level)
