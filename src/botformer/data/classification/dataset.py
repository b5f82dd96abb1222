"""Data sets of labelled images: class folders, tar files, data sets of the hub. Listed by timm's readers.

timm is imported only where something is listed: the import takes seconds, and every worker process would pay for it.
"""

import hashlib
import importlib.util
import io
import logging
import os
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

import numpy as np

from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""Extensions of image files, in upper or lower case."""

VALIDATION_NAMES = ("validation", "val", "test")
"""Names of the split that training is validated on; the first that exists is taken."""

LAYOUTS = """expected one of
  DIR/train/CLASS/*.jpg and DIR/validation/CLASS/*.jpg (also val or test)
  DIR/CLASS/*.jpg (a tenth of every class is held out for validation)
  DIR/train.tar and DIR/validation.tar, or folders of tars (inside: CLASS/*.jpg)
  hfds/OWNER/NAME, a data set of the hub with columns image and label"""

HUB_PREFIX = "hfds/"

_PAIR = ("train", "validation")


class _Store(Protocol):
    """Opens images by their row. It is pickled for worker processes, so it has no open file."""

    def open(self, row: int) -> BinaryIO: ...

    def name(self, row: int) -> str: ...


@dataclass(frozen=True)
class ClassificationDataset:
    """Labelled images in a fixed order (by name), the same on every machine. `where` is used in messages."""

    where: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    """int64 (images,): indices into `class_names`."""
    store: _Store
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


def open_classification_datasets(data: str) -> tuple[ClassificationDataset, ClassificationDataset]:
    """The images to train on and those to validate on, with the same classes. `LAYOUTS` says what `data` may be.

    Without a train split a tenth of every class, chosen by a hash of the names, is held out. Raises InputError where
    the layout is none of these, where a class has no images, or where the two disagree on the classes.
    """
    if data.startswith(HUB_PREFIX):
        train, splits = _list_hub(data, "train")
        validation_name = next((name for name in VALIDATION_NAMES if name in splits), None)
        if validation_name is None:
            return _tenth_held_out(train)
        return train, _list_hub(data, validation_name)[0]
    root = _existing(data)
    train_at = _split(root, ("train",))
    if train_at is None:
        return _tenth_held_out(_list(root))
    validation_at = _split(root, VALIDATION_NAMES)
    if validation_at is None:
        raise InputError(
            f"{root} has {train_at.name} but nothing to validate on; {_found(root)}. Add {root / 'validation'} (or "
            f"val, test) with the same classes, or give {train_at} itself: a tenth of it is then held out"
        )
    train, validation = _list(train_at), _list(validation_at)
    _check_same_classes(train, validation)
    return train, validation


def open_classification_dataset(data: str, split: str = "") -> ClassificationDataset:
    """One split of `data`.

    "train" and "validation" are those of `open_classification_datasets`, held out if need be; any other is found by its
    name; "" is everything directly below `data`, such as DIR/test. Raises InputError as `open_classification_datasets`.
    """
    if data.startswith(HUB_PREFIX):
        return (
            open_classification_datasets(data)[split == "validation"] if split in _PAIR else _list_hub(data, split)[0]
        )
    root = _existing(data)
    if not split:
        return _list(root)
    at = _split(root, VALIDATION_NAMES if split == "validation" else (split,))
    if at is not None:
        return _list(at)
    if split in _PAIR and _split(root, ("train",)) is None:
        return open_classification_datasets(data)[split == "validation"]
    raise InputError(f"{root} has no split {split!r}: neither a folder nor a .tar of that name; {_found(root)}")


def _existing(data: str) -> Path:
    root = Path(data).expanduser()
    if not root.exists():
        raise InputError(f"data folder {root} does not exist; {LAYOUTS}")
    return root


def _split(root: Path, names: Iterable[str]) -> Path | None:
    for name in names:
        if (root / name).is_dir():
            return root / name
        if (root / f"{name}.tar").is_file():
            return root / f"{name}.tar"
    return None


def _found(root: Path) -> str:
    entries = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
    return f"found there: {and_more(entries, 10) or 'nothing'}"


def _list(at: Path) -> ClassificationDataset:
    if at.is_file() and at.suffix.lower() != ".tar":
        raise InputError(f"{at} is a file, not a folder or a .tar (unpack a zip or a compressed tar first); {LAYOUTS}")
    dataset = _list_tars(at) if at.is_file() or any(at.glob("*.tar")) else _list_folder(at)
    if len(dataset.class_names) == 1:
        raise InputError(
            f"all {len(dataset)} images of {at} are of one class, {dataset.class_names[0]!r}; a classifier needs at "
            f"least two; {LAYOUTS}"
        )
    log.info("%s: %d images of %d classes", at, len(dataset), len(dataset.class_names))
    return dataset


def _dataset(where: Path, store: _Store, names: Sequence[str], classes: Sequence[str]) -> ClassificationDataset:
    """From one name and one class per row of the store, in any order."""
    from timm.utils.misc import natural_key

    rows = sorted((row for row in range(len(names)) if not _hidden(names[row])), key=lambda row: names[row])
    if not rows:
        raise InputError(f"{where}: no images ({' '.join(EXTENSIONS)}); {LAYOUTS}")
    # Then by the exact name: natural order alone leaves "a" and "A" in the order of the file system.
    class_names = sorted({classes[row] for row in rows}, key=lambda name: (natural_key(name), name))
    index = {name: label for label, name in enumerate(class_names)}
    return ClassificationDataset(
        where=str(where),
        class_names=tuple(class_names),
        labels=np.array([index[classes[row]] for row in rows], dtype=np.int64),
        store=store,
        rows=np.array(rows, dtype=np.int64),
    )


def _hidden(name: str) -> bool:
    """Files of operating systems and tools: .DS_Store, ._photo.jpg, .ipynb_checkpoints/..., __MACOSX/..."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


# Class folders


@dataclass(frozen=True)
class _Files:
    root: str
    names: list[str]

    def open(self, row: int) -> BinaryIO:
        return open(os.path.join(self.root, self.names[row]), "rb")

    def name(self, row: int) -> str:
        return self.names[row]


def _list_folder(root: Path) -> ClassificationDataset:
    """The class is the first folder below `root`, however deep an image lies."""
    from timm.data.readers.reader_image_folder import find_images_and_targets

    class_folders = {entry.name for entry in root.iterdir() if entry.is_dir() and not _hidden(entry.name)}
    if not class_folders:
        raise InputError(f"{root} has no class folders; {_found(root)}; {LAYOUTS}")
    found, _ = find_images_and_targets(str(root), types=set(EXTENSIONS), sort=False)
    names = [path[len(str(root)) + 1 :].replace(os.sep, "/") for path, _ in found]
    loose = [name for name in names if "/" not in name and not _hidden(name)]
    if loose:
        log.warning("%s: %d images outside the class folders are left out, such as %s", root, len(loose), min(loose))
    names = [name for name in names if "/" in name and not _hidden(name)]
    classes = [name.split("/", 1)[0] for name in names]
    empty = sorted(class_folders - set(classes))
    if empty:
        raise InputError(
            f"{root}: no images ({' '.join(EXTENSIONS)}) in the class "
            f"{'folder' if len(empty) == 1 else 'folders'} {and_more(empty, 10)}; fill or remove, {LAYOUTS}"
        )
    return _dataset(root, _Files(str(root), names), names, classes)


# Tar files


@dataclass(frozen=True)
class _Spans:
    """Members of uncompressed tars are spans of bytes, which are read without keeping a tar file open."""

    tars: tuple[str, ...]
    spans: np.ndarray
    """int64 (members, 3): index into tars, offset in bytes, size in bytes."""
    names: list[str]

    def open(self, row: int) -> BinaryIO:
        tar, offset, size = self.spans[row].tolist()
        with open(self.tars[tar], "rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))

    def name(self, row: int) -> str:
        return self.names[row]


def _list_tars(at: Path) -> ClassificationDataset:
    """A tar, or a folder of tars. The class is a member's innermost folder, or its tar's name where it has none."""
    from timm.data.readers.reader_image_in_tar import extract_tarinfos

    try:
        # With cache_tarinfo, timm keeps its listing beside the tars and reads it back as a pickle.
        members, targets, class_to_index, _ = extract_tarinfos(
            str(at), cache_tarinfo=False, extensions=set(EXTENSIONS), sort=False
        )
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(
            f"a tar of {at} cannot be listed ({error}); it may be truncated or compressed: pack it again with tar -cf"
        ) from error
    except ValueError:  # timm transposes an empty list
        raise InputError(f"{at}: no images ({' '.join(EXTENSIONS)}) in the tar files; {LAYOUTS}") from None
    assert class_to_index is not None  # timm's type annotation allows None
    class_of = {index: name for name, index in class_to_index.items()}
    tars: dict[str, int] = {}
    spans, names = [], []
    for member, tar, inner_tar in members:
        tar_index = tars.setdefault(str(at / tar) if tar else str(at), len(tars))
        spans.append((tar_index, member.offset_data + (inner_tar.offset_data if inner_tar else 0), member.size))
        names.append(str(PurePosixPath(tar or "", inner_tar.name if inner_tar else "", member.name)))
    store = _Spans(tuple(tars), np.array(spans, dtype=np.int64), names)
    return _dataset(at, store, names, [class_of[int(target)] for target in targets])


# Hub data sets


@dataclass(frozen=True)
class _HubRows:
    dataset: Any
    split: str

    def open(self, row: int) -> BinaryIO:
        image = self.dataset[row]["image"]
        return io.BytesIO(image["bytes"]) if image["bytes"] else open(image["path"], "rb")

    def name(self, row: int) -> str:
        return f"{self.split}[{row}]"  # getting a path, where there is one, would read the image as well


def _list_hub(data: str, split: str) -> tuple[ClassificationDataset, tuple[str, ...]]:
    """The split's images, and the names of all splits. OWNER/NAME may be a folder of Parquet files."""
    if importlib.util.find_spec("datasets") is None:
        raise InputError(f"{data} needs the package datasets: pip install 'botformer[shards]'")
    from timm.data.readers.reader_hfds import ReaderHfds

    try:
        reader = ReaderHfds(data.removeprefix(HUB_PREFIX), split=split)
        labels = np.array(list(reader.iter_targets()), dtype=np.int64)
    except Exception as error:  # hub, network, cache and formats raise exceptions of their own
        raise InputError(
            f"{data}, split {split!r}, cannot be opened ({type(error).__name__}: {error}); expected are columns image "
            f"(an Image) and label (a ClassLabel), and the data set in the local cache or a connection to the hub"
        ) from error
    class_names = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__))
    if not class_names:
        raise InputError(f"{data}: column label is not a ClassLabel, so the classes have no names")
    if len(labels) and labels.min() < 0:
        raise InputError(f"{data}: split {split!r} has images without a label (-1); choose a labelled split")
    log.info("%s, %s: %d images of %d classes", data, split, len(labels), len(class_names))
    store = _HubRows(reader.dataset, split)
    dataset = ClassificationDataset(f"{data} ({split})", class_names, labels, store, np.arange(len(labels)))
    return dataset, tuple(reader.dataset.info.splits or ())


# Train and validation


def _tenth_held_out(whole: ClassificationDataset) -> tuple[ClassificationDataset, ClassificationDataset]:
    """Hold out a tenth, at least one image, of every class with two or more: those whose names have the lowest hash."""
    of_class: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(whole.labels.tolist()):
        of_class[label].append(index)
    held_out = np.zeros(len(whole), dtype=bool)
    for indices in of_class.values():
        if len(indices) > 1:
            by_hash = sorted(indices, key=lambda index: hashlib.sha256(os.fsencode(whole.name(index))).digest())
            held_out[by_hash[: max(1, round(len(indices) / 10))]] = True
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


def _check_same_classes(train: ClassificationDataset, validation: ClassificationDataset) -> None:
    only_train = sorted(set(train.class_names) - set(validation.class_names))
    only_validation = sorted(set(validation.class_names) - set(train.class_names))
    if only_train or only_validation:
        differences = [
            f"only in {dataset.where}: {and_more(names, 10)}"
            for dataset, names in ((train, only_train), (validation, only_validation))
            if names
        ]
        raise InputError(
            f"training and validation images must be of the same classes; {'; '.join(differences)}. Add the missing "
            f"folders or remove the surplus ones"
        )
