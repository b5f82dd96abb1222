"""What the objects of a training set are, as numbers: what rules about a detector go by."""

from dataclasses import dataclass

import numpy as np

from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.repeat_factors import class_frequencies
from botformer.data.mirrored_names import class_with_sides

_MOST_IMAGES = 20_000
"""Of a larger data set every so-manieth image is looked at."""
_EVEN = np.sqrt(1 / 12)
"""Standard deviation of what is spread evenly from 0 to 1."""
_MANY = 300
"""Objects from which on their places and proportions say something of how images were taken."""


@dataclass(frozen=True, eq=False)
class ObjectStatistics:
    """Of the images of a training set, or of an even sample of them; crowds are not counted."""

    longest_px: float
    """Median of the images' longer sides."""
    sizes_px: np.ndarray
    """float64 (objects,): the root of the area of each box, in pixels of the file."""
    sizes: np.ndarray
    """float64 (objects,): the same as a fraction of the longer side of its image."""
    ratios: np.ndarray
    """float64 (objects,): height to width of each box."""
    per_image: np.ndarray
    """int64 (images with objects,): how many."""
    class_frequencies: np.ndarray
    """float64 (classes that occur,): the fraction of the images that each is in."""
    shows_no_up: bool
    """Objects of one class, hundreds of them, lie and are shaped as if images could be turned by a quarter: spread as
    evenly from top to bottom as at random, no larger at the bottom, as often tall as wide."""
    has_sides: str
    """A class that an image flipped left to right would show wrongly. Empty: none."""


def object_statistics(dataset: DetectionDataset) -> ObjectStatistics:
    """Of a data set with at least one object."""
    step = -(-len(dataset) // _MOST_IMAGES)
    images = [dataset.image(index) for index in range(0, len(dataset), step)]
    objects = [[found for found in image.annotations if not found.crowd] for image in images]
    if not any(objects):  # the few that there are lie between those of the sample
        images = [dataset.image(index) for index in range(len(dataset))]
        objects = [[found for found in image.annotations if not found.crowd] for image in images]
    boxes = np.array([found.box_xyxy for each in objects for found in each], dtype=np.float64)
    owner = np.repeat(np.arange(len(images)), [len(each) for each in objects])
    image_px = np.array([(image.width, image.height) for image in images], dtype=np.float64)
    width, height = (boxes[:, 2:] - boxes[:, :2]).clip(min=1e-3).T
    sizes_px = np.sqrt(width * height)
    sizes = sizes_px / image_px[owner].max(1)
    per_image = np.array([len(each) for each in objects])
    classes = [{found.label - 1 for found in each} for each in objects]
    frequencies = class_frequencies(classes, len(dataset.categories))
    return ObjectStatistics(
        longest_px=float(np.median(image_px.max(1))),
        sizes_px=sizes_px,
        sizes=sizes,
        ratios=height / width,
        per_image=per_image[per_image > 0],
        class_frequencies=frequencies[frequencies > 0],
        shows_no_up=len(dataset.categories) == 1
        and _shows_no_up((boxes[:, 1] + boxes[:, 3]) / 2 / image_px[owner, 1], sizes, height / width),
        has_sides=class_with_sides(dataset.class_names),
    )


def _shows_no_up(middles: np.ndarray, sizes: np.ndarray, ratios: np.ndarray) -> bool:
    """Of each object the middle (0 top to 1 bottom), its size, and height to width."""
    if len(middles) < _MANY:
        return False
    larger_below = 0.0 if np.ptp(sizes) == 0 else abs(np.corrcoef(np.log(sizes), middles)[0, 1])
    return bool(
        abs(middles.mean() - 0.5) < 0.03
        and abs(middles.std() - _EVEN) < 0.03
        and larger_below < 0.1
        and abs(np.median(np.log(ratios))) < 0.05
    )
