"""A tenth of the images to validate on, where nobody has put some aside."""

import hashlib
import logging
import os
from collections.abc import Sequence

from botformer.data.detection.coco_shapes import id_text
from botformer.data.detection.dataset import DetectionDataset, ImageRecord, make_dataset
from botformer.errors import InputError

log = logging.getLogger("botformer.data")


def hold_out_a_tenth(whole: DetectionDataset) -> tuple[DetectionDataset, DetectionDataset]:
    """The images to train on and those held out: a tenth of those with objects and a tenth of those without, whose
    names have the lowest hash. The same on every machine.

    Raises InputError where there are fewer than two images with objects.
    """
    images = [whole.image(index) for index in range(len(whole))]
    with_objects = [image for image in images if any(not found.crowd for found in image.annotations)]
    if len(with_objects) < 2:
        raise InputError(
            f"{whole.where} has no images to validate on, and none can be held out: of its {len(images)} images "
            f"{len(with_objects)} have objects, at least two must; "
            + ("annotate more, or add a validation split" if whole.objects else whole.why_no_objects)
        )
    without = [image for image in images if all(found.crowd for found in image.annotations)]
    held_out = {image.file for group in (with_objects, without) for image in _lowest_hashes(group)}
    log.warning(
        "%s has no images to validate on: %d of %d images, a tenth by a hash of their names, are held out",
        whole.where, len(held_out), len(images),
    )  # fmt: skip
    train = [image for image in images if image.file not in held_out]
    validation = [image for image in images if image.file in held_out]
    return _part(whole, train, "training part"), _part(whole, validation, "held-out tenth")


def _part(whole: DetectionDataset, images: Sequence[ImageRecord], part: str) -> DetectionDataset:
    """With the problems of these images, and those of images that are in neither part."""
    own = {id_text(image.id) for image in images}
    others = {id_text(whole.image(index).id) for index in range(len(whole))} - own
    problems = [problem for problem in whole.problems if id_text(problem.image_id) not in others]
    where = f"{whole.where} ({part})"
    return make_dataset(where, whole.folder, whole.categories, images, problems, whole.layout)


def _lowest_hashes(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    by_hash = sorted(images, key=lambda image: hashlib.sha256(os.fsencode(image.file)).digest())
    return by_hash[: max(1, round(len(images) / 10))] if len(images) > 1 else []
