"""What is wrong or odd with the labels of a data set: few, uneven, missing, outside of their image, too small."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from botformer.data.classification.dataset import ClassificationDataset
from botformer.data.detection.dataset import NO_IMAGE, DetectionDataset, ImageRecord
from botformer.data.detection.object_sizes import small_objects
from botformer.recipes.detector_settings import Settings
from botformer.report.finding import Example, Finding, ImageRef
from botformer.report.image_findings import EXAMPLES, listed
from botformer.report.opened_data import OpenedData, Split
from botformer.text import and_more, printable

_FEW = 20
"""Of a class in training: fewer, and it is hardly learnt."""
_UNEVEN = 10.0
"""The largest class by the smallest."""
_SURE_WITHIN = 0.05
_SAME_BOX = 0.95
"""IoU from which on two boxes of one class are one object, annotated twice."""


def label_findings(data: OpenedData, canvas: float) -> list[Finding]:
    """The worst first. `canvas`: side in px of the square on which a detector would see the images."""
    findings = [*_of_classes(data), *_sureness(data)]
    for split in data.splits:
        if isinstance(split.dataset, DetectionDataset):
            findings += _of_objects(split, split.dataset, canvas)
    return findings


def label_counts(split: Split, classes: int) -> np.ndarray:
    """int64 (classes,): images of each class, or objects, crowds apart."""
    if isinstance(split.dataset, ClassificationDataset):
        return np.bincount(split.dataset.labels, minlength=classes)
    counts = np.zeros(classes, dtype=np.int64)
    for record in records(split.dataset):
        for annotation in record.annotations:
            counts[annotation.label - 1] += not annotation.crowd
    return counts


def records(dataset: DetectionDataset) -> Iterator[ImageRecord]:
    return map(dataset.image, range(len(dataset)))


def _of_classes(data: OpenedData) -> Iterator[Finding]:
    what = "objects" if data.is_detection else "images"
    counts = {split.name: label_counts(split, len(data.class_names)) for split in data.splits}
    train, names = counts["train"], data.class_names
    if data.is_detection:  # a classifier's reader says it itself
        for split, of_split in counts.items():
            if absent := [names[place] for place in np.flatnonzero(of_split == 0)]:
                yield Finding(
                    "warning",
                    f"{len(absent)} of {len(names)} classes {'has' if len(absent) == 1 else 'have'} no objects in "
                    f"{split}: {and_more(absent, 8)}",
                    split,
                    len(absent),
                    "They cannot be learnt; annotate some, or drop the class."
                    if split == "train"
                    else "They are not measured; move some of their images here.",
                )
    few = [place for place in np.argsort(train, kind="stable") if 0 < train[place] < _FEW]
    if few:
        yield Finding(
            "warning",
            f"{len(few)} of {len(names)} classes {'has' if len(few) == 1 else 'have'} fewer than {_FEW} {what} to "
            f"learn from: {and_more([f'{names[place]} ({train[place]})' for place in few], 8)}",
            "train",
            len(few),
            "Add some, or join classes that are alike; with so few, start from pre-trained weights.",
        )
    there = train[train > 0]
    if len(there) > 1 and there.max() > _UNEVEN * there.min():
        most, least = names[int(train.argmax())], names[int(np.where(train > 0, train, train.max() + 1).argmin())]
        yield Finding(
            "warning",
            f"classes are uneven: {most} has {there.max():,} {what}, {least} {there.min():,} "
            f"({there.max() / there.min():.0f} times fewer)",
            "train",
            len(there),
            "Look at the numbers of each class, not at the total alone"
            + (
                ""
                if data.is_detection
                else f": guessing {most} would already be right in {there.max() / there.sum():.0%}"
            )
            + ". More images of the rare ones help most.",
        )


def _sureness(data: OpenedData) -> Iterator[Finding]:
    """How much an accuracy on so few images may be off: two standard deviations of a binomial, at a half."""
    validation = data.split("validation") if data.splits else None
    if validation is None or not len(validation) or data.is_detection:
        return
    off = 1 / np.sqrt(len(validation))
    if off > _SURE_WITHIN:
        yield Finding(
            "note",
            f"{len(validation)} validation images: an accuracy measured on them may be off by {off:.0%}",
            "validation",
            len(validation),
            f"With {round(1 / _SURE_WITHIN**2)} it is {_SURE_WITHIN:.0%}. Do not choose between runs that are closer.",
        )


def _of_objects(split: Split, dataset: DetectionDataset, canvas: float) -> Iterator[Finding]:
    yield from _problems(split, dataset)
    yield from _twice(split, dataset)
    yield from _without_objects(split, dataset)
    yield from _many(split, dataset)
    said = small_objects(dataset, canvas)
    if said is not None and said.many:
        yield Finding("warning", said.text, split.name, said.count, said.fix)


def _problems(split: Split, dataset: DetectionDataset) -> Iterator[Finding]:
    """What the reader left out, one finding per kind of reason."""
    kinds = defaultdict(list)
    for problem in dataset.problems:
        if problem.reason != NO_IMAGE:  # the reader says it itself
            kinds[re.sub(r"-?\d+(\.\d+)?", "#", problem.reason)].append(problem)
    for found in sorted(kinds.values(), key=len, reverse=True):
        lost = sum(problem.objects for problem in found)
        more = "" if len(found) == 1 else f"{found[0].reason}, and so on"
        yield Finding(
            "warning" if lost else "note",
            f"{len(found):,} annotation{'' if len(found) == 1 else 's'} {'left out' if lost else 'mended'}: "
            f"{more or found[0].reason}",
            split.name,
            len(found),
            "Correct them where the images were annotated." if lost else "Nothing to do if the images look right.",
            listed=listed([printable(str(problem)) for problem in found]),
        )


def _twice(split: Split, dataset: DetectionDataset) -> Iterator[Finding]:
    found: list[tuple[int, ImageRecord, tuple[float, float, float, float]]] = []
    for index, record in enumerate(records(dataset)):
        objects = [annotation for annotation in record.annotations if not annotation.crowd]
        if len(objects) < 2:
            continue
        boxes = np.array([each.box_xyxy for each in objects])
        labels = np.array([each.label for each in objects])
        same = np.triu(overlaps(boxes, boxes) >= _SAME_BOX, 1) & (labels[:, None] == labels)
        found += [(index, record, objects[place].box_xyxy) for place in np.flatnonzero(same.any(0))]
    if found:
        yield Finding(
            "warning",
            f"{len(found):,} object{'' if len(found) == 1 else 's'} annotated twice: boxes of one class that are the "
            "same",
            split.name,
            len(found),
            "Remove one of each pair: a detector can find an object only once, and the other counts as missed.",
            listed=listed([f"{printable(record.file)}: {_box(box)}" for _, record, box in found]),
            examples=[
                Example([ImageRef(split.name, index, (box,))], f"{split.name}: {printable(record.file)}")
                for index, record, box in found[:EXAMPLES]
            ],
        )


def _without_objects(split: Split, dataset: DetectionDataset) -> Iterator[Finding]:
    empty = [(index, record) for index, record in enumerate(records(dataset)) if not record.annotations]
    if empty:
        many = len(empty) > len(dataset) / 2
        yield Finding(
            "warning" if many else "note",
            f"{len(empty):,} of {len(dataset):,} images have no objects",
            split.name,
            len(empty),
            "Right if there is nothing on them: they teach what is not an object. If they were not annotated, remove "
            "them: what is on them would count as background.",
            listed=listed([printable(record.file) for _, record in empty]),
            examples=[
                Example([ImageRef(split.name, index)], f"{split.name}: {printable(record.file)}")
                for index, record in empty[:EXAMPLES]
            ],
        )


def _many(split: Split, dataset: DetectionDataset) -> Iterator[Finding]:
    most = Settings().max_detections
    counts = [sum(not each.crowd for each in record.annotations) for record in records(dataset)]
    crowded = sum(count > most for count in counts)
    if crowded:
        yield Finding(
            "warning",
            f"{crowded:,} images have more than {most} objects (up to {max(counts):,}), and a detector gives its best "
            f"{most}",
            split.name,
            crowded,
            f"--settings.max-detections {max(counts)}, or cut the images into tiles.",
        )


def class_samples(data: OpenedData, count: int) -> list[Example]:
    """Some training images, of every class in turn; for a detector's data those in the middle of the list."""
    train = data.split("train")
    if isinstance(train.dataset, DetectionDataset):
        step = max(1, len(train) // count)
        chosen = list(range(step // 2, len(train), step))[:count]
        examples = []
        for index in chosen:
            record = train.dataset.image(index)
            boxes = tuple(each.box_xyxy for each in record.annotations if not each.crowd)
            labels = Counter(train.dataset.categories[each.label - 1].name for each in record.annotations)
            words = and_more([f"{number} {name}" for name, number in labels.most_common()], 3) or "no objects"
            examples.append(Example([ImageRef("train", index, boxes)], words))
        return examples
    places = [np.flatnonzero(train.dataset.labels == label) for label in range(len(data.class_names))]
    rounds = max(1, -(-count // max(1, len(places))))
    chosen = [
        int(of_class[len(of_class) * turn // rounds])
        for turn in range(rounds)
        for of_class in places
        if len(of_class) > turn
    ]
    return [Example([ImageRef("train", index)], train.label(index)) for index in chosen[:count]]


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU (n, m) of boxes (n, 4) and (m, 4) xyxy."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (one, other)]
    return both / np.maximum(areas[0][:, None] + areas[1][None] - both, np.finfo(float).tiny)


def _box(box: Sequence[float]) -> str:
    return "box " + ", ".join(f"{value:.0f}" for value in box)
