"""A data set as training opens it: its splits, and what its readers said about it."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from botformer.create.train_recipe import check_objects
from botformer.data.classification.dataset import (
    ClassificationDataset,
    has_test_split,
    open_classification_dataset,
    open_classification_datasets,
)
from botformer.data.classification.hub import HUB_PREFIX, is_hub
from botformer.data.classification.shard_addresses import are_addresses
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import (
    format_of,
    has_annotated_test_split,
    has_shapes,
    is_annotated,
    open_detection_dataset,
    open_detection_datasets,
)
from botformer.data.detection.match_categories import match_categories
from botformer.errors import InputError
from botformer.read_file import at_home, open_file
from botformer.recipes.schema import DetectionImages, DetectionRecipe
from botformer.report.finding import Finding

Dataset = ClassificationDataset | DetectionDataset
_DatasetT = TypeVar("_DatasetT", ClassificationDataset, DetectionDataset)

_ALL_BAD_RECORDS = 10**9
"""To look at data that training would refuse for having too many."""


@dataclass(frozen=True)
class Split:
    """Images to train on, to validate on or to test on."""

    name: str
    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def image_name(self, index: int) -> str:
        return self.dataset.name(index)

    def open(self, index: int) -> BinaryIO:
        """The image's file. Raises OSError."""
        if isinstance(self.dataset, ClassificationDataset):
            return self.dataset.read(index)[0]
        return open_file(self.dataset.folder / self.dataset.name(index))

    def label(self, index: int) -> str:
        """The class of an image; "" where objects have classes, not images."""
        if isinstance(self.dataset, ClassificationDataset):
            return self.dataset.class_names[int(self.dataset.labels[index])]
        return ""


@dataclass(frozen=True)
class OpenedData:
    data: str
    layout: str
    """In words: class folders, COCO annotations with boxes, ..."""
    class_names: tuple[str, ...]
    splits: tuple[Split, ...]
    """train, validation, and test where there is one of its own. None where the data cannot be opened at all."""
    findings: tuple[Finding, ...]
    """Why training would refuse it, and what the readers warned of."""

    @property
    def is_detection(self) -> bool:
        return any(isinstance(split.dataset, DetectionDataset) for split in self.splits)

    def split(self, name: str) -> Split:
        return next(split for split in self.splits if split.name == name)


def open_data(data: str) -> OpenedData:
    """What training would read from `data`, which may be anything that `botformer train` takes.

    What stops training is a finding, an error, and no exception. Where it can be opened all the same (too many bad
    records, nothing to measure by), the splits are there.

    Raises:
        InputError: there is no such folder or file.
    """
    if not (data.startswith(HUB_PREFIX) or are_addresses(data) or at_home(data).exists()):
        raise InputError(f"{data} does not exist; expected a folder of images, as for botformer train --data")
    return _open_detection(data) if is_annotated(data) else _open_classification(data)


def _open_classification(data: str) -> OpenedData:
    said: list[str] = []
    try:
        with _listening(said):
            train, validation = open_classification_datasets(data)
            test, unusable = _own_test(
                has_test_split(data),
                lambda: open_classification_dataset(data, "test").relabelled(train.class_names, train.where),
            )
    except InputError as error:
        return OpenedData(data, "images in class folders", (), (), (_refused(error), *_warnings(said)))
    findings = (*unusable, *_warnings(said))
    return OpenedData(data, _classes_lie_in(data), train.class_names, _splits(train, validation, test), findings)


def _open_detection(data: str) -> OpenedData:
    said: list[str] = []
    refused: list[Finding] = []
    layout = "annotated images"
    try:
        with _listening(said):
            layout = f"annotated images ({format_of(data)})"
            try:
                train, validation = open_detection_datasets(data)
            except InputError as error:
                said.clear()
                train, validation = open_detection_datasets(data, max_bad_records=_ALL_BAD_RECORDS)
                refused.append(_refused(error))
            known = [(category.id, category.name) for category in train.categories]
            test, unusable = _own_test(
                has_annotated_test_split(data),
                lambda: match_categories(
                    open_detection_dataset(data, "test", max_bad_records=_ALL_BAD_RECORDS), known, train.where
                ),
            )
    except InputError as error:
        return OpenedData(data, layout, (), (), (_refused(error), *_warnings(said)))
    shapes = has_shapes(train)
    try:
        check_objects(
            DetectionRecipe(detector="mask_rcnn" if shapes else "faster_rcnn", images=DetectionImages()),
            train,
            validation,
        )
    except InputError as error:
        refused.append(_refused(error))
    layout += ": boxes and shapes" if shapes else ": boxes alone"
    problems = {str(problem) for dataset in (train, validation) for problem in dataset.problems}
    findings = (
        *refused,
        *unusable,
        *_warnings(text for text in said if not any(problem in text for problem in problems)),
    )
    return OpenedData(data, layout, train.class_names, _splits(train, validation, test), findings)


def _splits(train: Dataset, validation: Dataset, test: Dataset | None) -> tuple[Split, ...]:
    own = () if test is None else (Split("test", test),)
    return (Split("train", train), Split("validation", validation), *own)


def _own_test(is_there: bool, open_test: Callable[[], _DatasetT]) -> tuple[_DatasetT | None, list[Finding]]:
    """The test split, or why it cannot be used: training does without it."""
    if not is_there:
        return None, []
    try:
        return open_test(), []
    except InputError as error:
        first, *more = str(error).splitlines()
        return None, [Finding("warning", f"the test split cannot be used: {first}", "test", 1, listed=more)]


def _classes_lie_in(data: str) -> str:
    if data.startswith(HUB_PREFIX):
        return "a data set of the hub"
    if are_addresses(data):
        return "images in tars on a server"
    return "images in Parquet files" if is_hub(data) else "images in class folders"


def _refused(error: InputError) -> Finding:
    first, *more = str(error).splitlines()
    return Finding("error", f"training would stop: {first}", "all", 1, listed=more)


def _warnings(said: "Iterator[str] | list[str]") -> list[Finding]:
    """What the readers warned of, as they said it."""
    findings = []
    for text in dict.fromkeys(said):
        first, *more = text.splitlines()
        findings.append(Finding("warning", first, "all", 1, listed=more))
    return findings


@contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Warnings of the readers go to the list instead of the terminal, where they would stand twice."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                said.append(record.getMessage())

    log, listener = logging.getLogger("botformer.data"), Listener()
    propagate = log.propagate
    log.addHandler(listener)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.propagate = propagate
