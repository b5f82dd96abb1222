"""Data sets of labelled images: class folders, tar files, data sets of the hub."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from botformer.data.classification.class_names import match_classes, natural_order
from botformer.data.classification.hub import HUB_PREFIX, list_hub
from botformer.data.classification.listing import Listing, Store, label, wrapper
from botformer.data.classification.split_names import Kind, SplitName, read_shard, read_split
from botformer.data.classification.tars import list_tars, tar_files
from botformer.data.image_files import find_files, is_hidden, is_image, report_links
from botformer.errors import InputError
from botformer.read_file import open_file
from botformer.text import and_more, printable

log = logging.getLogger("botformer.data")

LAYOUTS = """expected one of
  DIR/train/CLASS/*.jpg and DIR/validation/CLASS/*.jpg (also val, valid, dev or test)
  DIR/CLASS/*.jpg (a tenth of every class is held out for validation)
  DIR/train.tar and DIR/validation.tar, or folders of tars (inside: CLASS/*.jpg, or WebDataset's *.jpg and *.cls)
  hfds/OWNER/NAME, a data set of the hub with columns image and label"""

_MEASURED_ON: tuple[Kind, ...] = ("validation", "test")
"""Kinds of splits that training is validated on; the first that exists is taken."""

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
    the layout is none of these, where a class has no images, or where there are classes only to validate on.
    """
    if data.startswith(HUB_PREFIX):
        train, names = _hub_dataset(data, "train")
        name = _first_kind({name: split for name in names if (split := read_split(name))}, SplitName("train", ()))
        if name is None:
            return _tenth_held_out(train)
        _warn_of_test(data, name)
        return train, _hub_dataset(data, name)[0]
    root = _Root.open(data)
    train_name = root.train()
    if train_name is None:
        return _tenth_held_out(_dataset(root.whole()))
    validation_name = root.to_measure_on()
    if validation_name is None:
        raise InputError(
            f"{root.at} has {train_name} but nothing to validate on; {root.found()}. Add {root.at / 'validation'} (or "
            f"val, valid, dev, test) with the same classes, or give {root.at / train_name} itself: a tenth of it is "
            "then held out"
        )
    _warn_of_test(str(root.at), validation_name)
    train, validation = _dataset(root.listing(train_name)), _dataset(root.listing(validation_name))
    return train, validation.relabelled(train.class_names, train.where)


def open_classification_dataset(data: str, split: str = "") -> ClassificationDataset:
    """One split of `data`.

    "train" and "validation" are those of `open_classification_datasets`, held out if need be; any other is found by its
    name; "" is everything directly below `data`, such as DIR/test. Raises InputError as `open_classification_datasets`.
    """
    if data.startswith(HUB_PREFIX):
        return (
            open_classification_datasets(data)[split == "validation"]
            if split in _PAIR
            else _hub_dataset(data, split)[0]
        )
    root = _Root.open(data)
    if not split:
        return _dataset(root.whole())
    name = root.named(split)
    if split == "validation" and name is None and (name := root.to_measure_on()):
        _warn_of_test(str(root.at), name)
    if name is not None:
        return _dataset(root.listing(name))
    if split in _PAIR and root.train() is None:
        return open_classification_datasets(data)[split == "validation"]
    raise InputError(f"{root.at} has no split {split!r}: neither a folder nor a .tar of that name; {root.found()}")


def has_test_split(data: str) -> bool:
    """Whether there is a test split besides one to train and one to validate on."""
    if data.startswith(HUB_PREFIX):
        kinds = {split.kind for name in list_hub(data, "train").splits if (split := read_split(name))}
        return kinds >= {"train", "validation", "test"}
    root = _Root.open(data)
    test = root.named("test")
    return root.train() is not None and test is not None and test in root.splits and test != root.to_measure_on()


def _warn_of_test(where: str, name: str) -> None:
    split = read_split(name)
    if split and split.kind == "test":
        log.warning(
            "%s has no validation split, so %s is taken to validate on: the checkpoint that is best on it is kept, "
            "which flatters its accuracy there",
            where,
            name,
        )


# Splits


@dataclass(frozen=True)
class _Root:
    """A folder or a tar, and the splits in it."""

    at: Path
    splits: dict[str, SplitName]
    """Name -> what it says. A folder is no split if it holds neither folders nor tars: "test" may be a class."""
    tars: dict[str, list[Path]]
    """The tars of a split: one, or numbered shards beside each other."""
    inside: Listing | None = None
    """Of a tar."""

    @classmethod
    def open(cls, data: str) -> "_Root":
        at = Path(data).expanduser()
        if not at.exists():
            raise InputError(f"data folder {at} does not exist; {LAYOUTS}")
        if at.is_file():
            if at.suffix.lower() != ".tar":
                raise InputError(
                    f"{at} is a file, not a folder or a .tar (unpack a zip or a compressed tar first); {LAYOUTS}"
                )
            inside = list_tars(str(at), [at], at)
            prefix = wrapper(inside)
            tops = {
                path.removeprefix(prefix).split("/")[0] for path in inside.paths if path.count("/") > prefix.count("/")
            }
            deep = {top for top in tops if any(path.count("/") >= prefix.count("/") + 2 for path in inside.paths)}
            return cls(at, _paired(_read(sorted(deep))), {}, _below(inside, prefix, str(at)))
        at = _unwrapped(at)
        tars: dict[str, list[Path]] = {}
        shards: dict[SplitName, str] = {}
        names: dict[str, SplitName] = {}
        for tar in tar_files(at):
            if shard := read_shard(tar.stem):
                tars.setdefault(shards.setdefault(shard, tar.stem), []).append(tar)
        names |= {name: shard for shard, name in shards.items()}
        folders = _read(_visible_folders(at))
        names = {name: split for name, split in names.items() if split not in folders.values()}  # unpacked beside
        names |= {name: split for name, split in folders.items() if _holds_classes(at / name)}
        return cls(at, _paired(names), tars)

    def train(self) -> str | None:
        return self._only([name for name, split in self.splits.items() if split.kind == "train"])

    def to_measure_on(self) -> str | None:
        train = self.train()
        return _first_kind(self.splits, self.splits[train] if train else None)

    def named(self, split: str) -> str | None:
        """A split, or any other folder or tar, by its own name or by one that says the same: test, Testing."""
        if self.inside is None and ((self.at / split).is_dir() or (self.at / f"{split}.tar").is_file()):
            return split
        asked = read_split(split)
        alike = [name for name in self.splits if name.lower() == split.lower()]
        return self._only(alike or [name for name, found in self.splits.items() if asked and found.kind == asked.kind])

    def _only(self, names: list[str]) -> str | None:
        if len(names) > 1:
            raise InputError(
                f"{self.at} has several splits of one kind, {and_more(sorted(names), _SHOWN)}; keep one of them there, "
                "or give a folder with the splits you mean (links will do)"
            )
        return names[0] if names else None

    def listing(self, name: str) -> Listing:
        if self.inside is not None:
            return _below(self.inside, f"{name}/", f"{self.at}/{name}")
        if name in self.tars and not (self.at / name).is_dir():
            tars = self.tars[name]
            return list_tars(str(self.at / tars[0].name), tars, tars[0] if len(tars) == 1 else self.at)
        tar = self.at / f"{name}.tar"
        return _list_folder(self.at / name) if (self.at / name).is_dir() else list_tars(str(tar), [tar], tar)

    def whole(self) -> Listing:
        return self.inside or _list_folder(self.at)

    def found(self) -> str:
        entries = self.splits if self.inside else (printable(entry.name) for entry in self.at.iterdir())
        return f"found there: {and_more(sorted(entries), _SHOWN) or 'nothing'}"


def _read(names: Iterable[str]) -> dict[str, SplitName]:
    return {name: split for name in names if (split := read_split(name))}


def _paired(splits: dict[str, SplitName]) -> dict[str, SplitName]:
    """Without those that are splits only as a pair, such as seg_train and seg_test: train_station may be a class."""
    kinds: dict[tuple[str, ...], set[Kind]] = defaultdict(set)
    for split in splits.values():
        kinds[split.rest].add(split.kind)
    return {
        name: split
        for name, split in splits.items()
        if not split.rest or ("train" in kinds[split.rest] and len(kinds[split.rest]) > 1)
    }


def _first_kind(splits: dict[str, SplitName], beside: SplitName | None) -> str | None:
    """The split to validate on, of those that belong to the train split `beside`."""
    for kind in _MEASURED_ON:
        names = [
            name for name, split in splits.items() if split.kind == kind and (not beside or split.rest == beside.rest)
        ]
        if names:
            return min(names, key=lambda name: (name.lower() not in ("validation", "test"), name))
    return None


def _visible_folders(at: Path) -> list[str]:
    # Not `entry.is_dir()`, which raises for a link that leads in a circle.
    return sorted(entry.name for entry in os.scandir(at) if os.path.isdir(entry.path) and not is_hidden(entry.name))


def _holds_classes(folder: Path) -> bool:
    return bool(_visible_folders(folder) or tar_files(folder)) or _holds_label_files(folder)


def _holds_label_files(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(".cls") for entry in entries)


def _unwrapped(root: Path) -> Path:
    """The folder that `root` holds, where it holds nothing else but that, and that one holds several."""
    at, seen = root, {os.path.realpath(root)}
    while True:
        folders = _visible_folders(at)
        if len(folders) != 1 or read_split(folders[0]) or tar_files(at) or any(map(is_image, os.listdir(at))):
            break
        at = at / folders[0]
        if os.path.realpath(at) in seen:
            return root
        seen.add(os.path.realpath(at))
    if at == root or len(_visible_folders(at)) + len(tar_files(at)) < 2:
        return root
    log.info("%s holds nothing but %s, which is read", root, at)
    return at


# One split


def _list_folder(root: Path) -> Listing:
    """A folder of class folders, or of tars."""
    tars = tar_files(root)
    if tars:
        return list_tars(str(root), tars, root)
    found = find_files(root)
    report_links(root, found)
    if not found.folders and not any(name.lower().endswith(".cls") for name in found.files):
        entries = and_more(sorted(map(printable, os.listdir(root))), _SHOWN) or "nothing"
        raise InputError(f"{root} has no class folders; found there: {entries}; {LAYOUTS}")
    return Listing(str(root), root, _Files(str(root), found.files), found.files, found.folders)


@dataclass(frozen=True)
class _Files:
    root: str
    names: list[str]

    def open(self, row: int) -> BinaryIO:
        return open_file(os.path.join(self.root, self.names[row]))

    def name(self, row: int) -> str:
        return self.names[row]


def _below(listing: Listing, prefix: str, where: str) -> Listing:
    """What lies below a folder of a listing."""
    rows = [row for row, path in enumerate(listing.paths) if path.startswith(prefix)]
    return replace(
        listing,
        where=where,
        store=_Rows(listing.store, rows),
        paths=[listing.paths[row].removeprefix(prefix) for row in rows],
        folders=[folder.removeprefix(prefix) for folder in listing.folders if folder.startswith(prefix)],
        tars=[listing.tars[row] for row in rows],
    )


@dataclass(frozen=True)
class _Rows:
    """Some of the rows of a store."""

    store: Store
    rows: list[int]

    def open(self, row: int) -> BinaryIO:
        return self.store.open(self.rows[row])

    def name(self, row: int) -> str:
        return self.store.name(self.rows[row])


def _dataset(listing: Listing) -> ClassificationDataset:
    labelled = label(listing, LAYOUTS)
    by_name = sorted(range(len(labelled.rows)), key=lambda place: listing.store.name(labelled.rows[place]))
    class_names = natural_order(set(labelled.classes))
    if len(class_names) == 1:
        raise InputError(
            f"all {len(labelled.rows)} images of {listing.where} are of one class, {class_names[0]!r}; a classifier "
            f"needs at least two: put images of something else into a second folder, such as 'other'; {LAYOUTS}"
        )
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
