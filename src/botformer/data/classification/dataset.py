"""Data sets of labelled images: class folders, tar files, data sets of the hub."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import BinaryIO

import numpy as np

from botformer.data.classification.class_names import match_classes, natural_order
from botformer.data.classification.hub import HubRows, is_hub, list_hub
from botformer.data.classification.listing import Listing, Store, label, unread_table
from botformer.data.classification.shard_addresses import are_addresses
from botformer.data.classification.shard_splits import open_addresses
from botformer.data.classification.split_folders import open_folder
from botformer.data.classification.split_names import SplitName, first_to_measure_on, read_split, read_splits
from botformer.data.classification.splits import LAYOUTS, Splits
from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_PAIR = ("train", "validation")
_SHOWN = 10


@dataclass(frozen=True)
class ClassificationDataset:
    """Labelled images in a fixed order (by name), the same on every machine. `where` is used in messages."""

    where: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    """int64 (images,): indices into `class_names`."""
    store: Store
    rows: np.ndarray
    """int64 (images,): the row of each image in the store."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> tuple[BinaryIO, int]:
        """The image's file, to be closed by the caller, and its label. OSError where it cannot be opened."""
        return self.store.open(int(self.rows[index])), int(self.labels[index])

    def name(self, index: int) -> str:
        """Name in the data set: the relative path with slashes, or the hub's split and row."""
        return self.store.name(int(self.rows[index]))

    @property
    def preload(self) -> list[str]:
        """Modules that are needed to read, besides those of this package."""
        return ["datasets"] if isinstance(self.store, HubRows) else []

    def relabelled(self, class_names: Iterable[str], known_by: str) -> "ClassificationDataset":
        """The same images with labels that are indices into `class_names`, of which they may have a part.

        Raises:
            InputError: classes that are not among them; `known_by` says whose they are.
        """
        names = tuple(class_names)
        places = np.array(match_classes(self.class_names, names, self.where, known_by), dtype=np.int64)
        return replace(self, class_names=names, labels=places[self.labels])


def open_classification_datasets(data: str) -> tuple[ClassificationDataset, ClassificationDataset]:
    """The images to train on and those to validate on, with the same classes. `LAYOUTS` says what `data` may be.

    Without a train split a tenth of every class, chosen by a hash of the names, is held out. Raises InputError where
    the layout is none of these, where a class has no images, where there is but one, or where there are classes only to
    validate on.
    """
    if is_hub(data):
        train, names = _hub_dataset(data, "train")
        name = first_to_measure_on(read_splits(names), SplitName("train", ()))
        if name is None:
            return _tenth_held_out(train)
        _warn_of_test(data, name)
        return train, _hub_dataset(data, name)[0].relabelled(train.class_names, train.where)
    root = _open_splits(data)
    train_name = root.train()
    if train_name is None:
        return _tenth_held_out(_to_learn(root.whole()))
    validation_name = root.to_measure_on()
    if validation_name is None:
        raise InputError(
            f"{root.at} has {train_name} but nothing to validate on; {root.found()}. Add "
            f"{os.path.join(root.at, 'validation')} (or val, valid, dev, test) with the same classes, or give "
            f"{os.path.join(root.at, train_name)} itself: a tenth of it is then held out"
        )
    _warn_of_test(root.at, validation_name)
    train, validation = _to_learn(root.listing(train_name)), _dataset(root.listing(validation_name))
    return train, validation.relabelled(train.class_names, train.where)


def open_classification_dataset(data: str, split: str = "") -> ClassificationDataset:
    """One split of `data`.

    "train" and "validation" are those of `open_classification_datasets`, held out if need be; any other is found by its
    name; "" is everything directly below `data`, such as DIR/test. Raises InputError as `open_classification_datasets`.
    """
    if is_hub(data):
        return (
            open_classification_datasets(data)[split == "validation"]
            if split in _PAIR
            else _hub_dataset(data, split)[0]
        )
    root = _open_splits(data)
    if not split:
        return _dataset(root.whole())
    name = root.named(split)
    if split == "validation" and name is None and (name := root.to_measure_on()):
        _warn_of_test(root.at, name)
    if name is not None:
        return _dataset(root.listing(name))
    if split in _PAIR and root.train() is None:
        return open_classification_datasets(data)[split == "validation"]
    raise InputError(f"{root.at} has no split {split!r}: neither a folder nor a .tar of that name; {root.found()}")


def has_test_split(data: str) -> bool:
    """Whether there is a test split besides one to train and one to validate on."""
    if is_hub(data):
        kinds = {split.kind for name in list_hub(data, "train").splits if (split := read_split(name))}
        return kinds >= {"train", "validation", "test"}
    root = _open_splits(data)
    test = root.named("test")
    return root.train() is not None and test is not None and test in root.known and test != root.to_measure_on()


def _warn_of_test(where: str, name: str) -> None:
    split = read_split(name)
    if split and split.kind == "test":
        log.warning(
            "%s has no validation split, so %s is taken to validate on: the checkpoint that is best on it is kept, "
            "which flatters its accuracy there",
            where,
            name,
        )


def _open_splits(data: str) -> Splits:
    if are_addresses(data):
        return open_addresses(data)
    return open_folder(data)


# One split


def _to_learn(listing: Listing) -> ClassificationDataset:
    """Of two classes or more."""
    dataset = _dataset(listing)
    if len(dataset.class_names) == 1:
        raise InputError(
            f"all {len(dataset)} images of {listing.where} are of one class, {dataset.class_names[0]!r}; a classifier "
            f"needs at least two: put images of something else into a second folder, such as 'other'"
            f"{unread_table(listing)}; {LAYOUTS}"
        )
    return dataset


def _dataset(listing: Listing) -> ClassificationDataset:
    labelled = label(listing, LAYOUTS)
    by_name = sorted(range(len(labelled.rows)), key=lambda place: listing.store.name(labelled.rows[place]))
    class_names = natural_order(set(labelled.classes))
    index = {name: number for number, name in enumerate(class_names)}
    dataset = ClassificationDataset(
        where=listing.where,
        class_names=class_names,
        labels=np.array([index[labelled.classes[place]] for place in by_name], dtype=np.int64),
        store=listing.store,
        rows=np.array([labelled.rows[place] for place in by_name], dtype=np.int64),
    )
    _report(dataset)
    return dataset


def _report(dataset: ClassificationDataset) -> None:
    names = dataset.class_names
    log.info("%s: %d images of %d classes: %s", dataset.where, len(dataset), len(names), and_more(names, _SHOWN))


def _hub_dataset(data: str, split: str) -> tuple[ClassificationDataset, tuple[str, ...]]:
    """The split's images, and the names of all splits."""
    listed = list_hub(data, split)
    rows = np.arange(len(listed.labels))
    dataset = ClassificationDataset(f"{data} ({split})", listed.class_names, listed.labels, listed.rows, rows)
    _report(dataset)
    return dataset, listed.splits


def _tenth_held_out(whole: ClassificationDataset) -> tuple[ClassificationDataset, ClassificationDataset]:
    """Hold out a tenth, at least one image, of every class with two or more: those whose names have the lowest hash.

    Raises InputError where no class has two.
    """
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(whole.labels.tolist()):
        of_class[number].append(index)
    held_out = np.zeros(len(whole), dtype=bool)
    for indices in of_class.values():
        if len(indices) > 1:
            by_hash = sorted(indices, key=lambda index: hashlib.sha256(os.fsencode(whole.name(index))).digest())
            held_out[by_hash[: max(1, round(len(indices) / 10))]] = True
    if not held_out.any():
        raise InputError(
            f"{whole.where}: there is no image to validate on: no class has two of the {len(whole)} images, so none "
            "can be held out; add images, two per class at the very least; twenty per class make a result that means "
            "something"
        )
    log.info(
        "%s has no split of its own to validate on: %d of %d images, a tenth of every class by a hash of the names, "
        "are held out",
        whole.where,
        held_out.sum(),
        len(whole),
    )
    train, validation = (
        replace(whole, where=f"{whole.where} ({part})", labels=whole.labels[chosen], rows=whole.rows[chosen])
        for part, chosen in (("training part", ~held_out), ("held-out tenth", held_out))
    )
    return train, validation
