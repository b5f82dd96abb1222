"""What a split needs of another: a tenth of the images where there is none to validate on, and the same categories."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from botformer.data.detection.dataset import Category, DetectionDataset, ImageRecord, make_dataset
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
            f"{len(with_objects)} have objects, at least two must; annotate more, or add a validation split"
        )
    without = [image for image in images if all(found.crowd for found in image.annotations)]
    held_out = {image.file for group in (with_objects, without) for image in _lowest_hashes(group)}
    log.warning(
        "%s has no images to validate on: %d of %d images, a tenth by a hash of their names, are held out",
        whole.where, len(held_out), len(images),
    )  # fmt: skip
    parts = (("training part", False), ("held-out tenth", True))
    return tuple(
        _with_images(whole, [image for image in images if (image.file in held_out) == out], f"{whole.where} ({part})")
        for part, out in parts
    )  # pyright: ignore[reportReturnType]


def with_categories(dataset: DetectionDataset, categories: Sequence[Category], whose: str) -> DetectionDataset:
    """The dataset with these categories, of which it may list some. `whose` they are is for the message.

    One is the same if id and name are, or if a name that is there but once is.

    Raises InputError where the dataset has one that is not among them.
    """
    if dataset.categories == tuple(categories):
        return dataset
    label_of = {category: label for label, category in enumerate(categories, 1)}
    label_of_name = {name: label_of[each] for each in categories for name in [each.name] if _once(name, categories)}
    new = {
        label: label_of.get(category)
        or (label_of_name.get(category.name) if _once(category.name, dataset.categories) else None)
        for label, category in enumerate(dataset.categories, 1)
    }
    unknown = [dataset.categories[label - 1] for label, other in new.items() if other is None]
    if unknown:
        used = set(new.values())
        missing = [category for label, category in enumerate(categories, 1) if label not in used]
        raise InputError(
            f"{whose} and {dataset.where} must have the same categories; only in the first: {_listed(missing)}; only "
            f"in the second: {_listed(unknown)}"
        )
    log.info(
        "%s: its %d categories are found by name among the %d of %s", dataset.where, len(new), len(label_of), whose
    )
    images = [
        replace(image, annotations=tuple(replace(found, label=new[found.label]) for found in image.annotations))
        for image in (dataset.image(index) for index in range(len(dataset)))
    ]
    return _with_images(replace(dataset, categories=tuple(categories)), images, dataset.where)


def _with_images(dataset: DetectionDataset, images: Sequence[ImageRecord], where: str) -> DetectionDataset:
    ids = {image.id for image in images}
    problems = tuple(problem for problem in dataset.problems if problem.image_id in ids)
    packed = make_dataset(where, dataset.folder, dataset.categories, images, problems, dataset.layout)
    return replace(
        dataset, where=where, objects=packed.objects, problems=problems, records=packed.records, starts=packed.starts
    )


def _lowest_hashes(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    by_hash = sorted(images, key=lambda image: hashlib.sha256(os.fsencode(image.file)).digest())
    return by_hash[: max(1, round(len(images) / 10))] if len(images) > 1 else []


def _once(name: str, categories: Sequence[Category]) -> bool:
    return Counter(category.name for category in categories)[name] == 1


def _listed(categories: Sequence[Category]) -> str:
    return ", ".join(f"{category.name} ({category.id})" for category in categories) or "none"
