"""The files of a data set, in folders or tars, and which class each image has."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol

from botformer.data.classification.split_names import is_numbered, read_shard, read_split
from botformer.data.image_files import EXTENSIONS, ending, endings, is_image, report_left_out
from botformer.errors import InputError
from botformer.read_file import parse_json, read_text
from botformer.text import and_more, counted, printable

log = logging.getLogger("botformer.data")

LABEL_FILES = (".cls", ".json")
"""Of WebDataset, beside an image of the same name: the class as a number or a text, or as "label" of an object."""

CLASS_NAME_FILES = ("classnames.txt", "class_names.txt", "classes.txt")
"""One name per line for the classes 0, 1, ... of the shards beside it or in a folder beside it."""

_TABLES = (".csv", ".tsv", ".xlsx")

_LISTED = 10


class Store(Protocol):
    """Opens files by their row. It is pickled for worker processes, so it has no open file."""

    def open(self, row: int) -> BinaryIO: ...

    def name(self, row: int) -> str: ...


class FoundText(NamedTuple):
    where: str
    text: str


FindText = Callable[[Sequence[str]], FoundText | None]
"""Names of text files -> the first that lies beside the images' folder or tars, or in the folder above them."""


_OF_OBJECTS = re.compile(
    r"((train|val|valid|test)[ _-]?)?"
    r"(images?|imgs?|jpegimages|masks?|labels?|annotations?|segmentation(class|object|s)?|ground[ _-]?truths?|gts?)",
    re.IGNORECASE,
)
"""Names of the folders of a data set for detection or segmentation."""


@dataclass(frozen=True)
class Listing:
    """Files and folders below one place, hidden ones left out."""

    where: str
    find_text: FindText
    store: Store
    paths: list[str]
    """Of the rows of the store, relative, with slashes."""
    folders: list[str]
    tars: list[str] = field(default_factory=list)
    """Per row the name of its innermost tar; empty for folders."""


def text_beside(at: Path, names: Sequence[str]) -> FoundText | None:
    """`FindText` for a folder or a tar."""
    folder = at if at.is_dir() else at.parent
    file = next((above / name for above in (folder, folder.parent) for name in names if (above / name).is_file()), None)
    return file and FoundText(str(file), read_text(file, "utf-8-sig", "replace"))


def below(listing: Listing, prefix: str, where: str) -> Listing:
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


@dataclass(frozen=True)
class Labelled:
    """The rows of the images, and the name of each one's class."""

    rows: list[int]
    classes: list[str]


def label(listing: Listing, layouts: str) -> Labelled:
    """The class of an image is what its .cls says, or else the first folder above it, or else the name of its tar.

    Raises:
        InputError: no images, folders that are no classes, or label files that cannot be understood.
    """
    images = [row for row, path in enumerate(listing.paths) if is_image(path)]
    if not images:
        others = counted(endings(listing.paths), _LISTED)
        raise InputError(
            f"{listing.where}: no images ({' '.join(EXTENSIONS)})"
            + (" in the tar files" if listing.tars else "")
            + (f"; the files there: {others}" if others else "")
            + f"; {layouts}"
        )
    found = _from_label_files(listing, images)
    if found is None:
        found = _from_folders(_with_tar_names(listing), images, layouts)
        used: set[str] = set()
    else:
        used = set(LABEL_FILES)
    report_left_out(listing.where, [p for p in listing.paths if not is_image(p) and ending(p) not in used])
    return found


# Folders


def wrapper(listing: Listing) -> str:
    """The folder, with a slash, that holds everything: data/ of data/cat/1.jpg and data/dog/2.jpg; "" for none.

    A single class folder with sub-folders is one too: a classifier needs two classes.
    """
    at = ""
    while True:
        tops = _tops(listing, at)
        if len(tops) != 1 or any("/" not in path.removeprefix(at) for path in _images_below(listing, at)):
            return at if len(tops) > 1 else ""
        at += f"{tops[0]}/"


def _tops(listing: Listing, at: str) -> list[str]:
    inside = (path[len(at) :] for path in [*listing.folders, *_parents(listing.paths)] if path.startswith(at))
    return sorted({path.split("/", 1)[0] for path in inside if path})


def _parents(paths: Sequence[str]) -> set[str]:
    return {path.rpartition("/")[0] for path in paths} - {""}


def _images_below(listing: Listing, at: str) -> list[str]:
    return [path for path in listing.paths if path.startswith(at) and is_image(path)]


def _from_folders(listing: Listing, images: list[int], layouts: str) -> Labelled:
    at = wrapper(listing)
    if at:
        log.info("%s: everything is in the folder %s; the folders in it are the classes", listing.where, printable(at))
    tops = _tops(listing, at)
    _check_no_splits(listing, at, tops)
    _check_no_masks(listing, at, tops)
    _check_no_level_too_many(listing, at, tops)
    rows, classes, loose = [], [], []
    for row in images:
        first, slash, _ = listing.paths[row].removeprefix(at).partition("/")
        if slash:
            rows.append(row)
            classes.append(first)
        else:
            loose.append(first)
    if loose:
        log.warning(
            "%s: %d images outside the class folders are left out, such as %s",
            listing.where,
            len(loose),
            printable(min(loose)),
        )
    if empty := sorted(set(tops) - set(classes)):
        inside = [p for p in listing.paths if p.removeprefix(at).partition("/")[0] in empty]
        others = counted(endings(inside), _LISTED)
        raise InputError(
            f"{listing.where}: no images ({' '.join(EXTENSIONS)}) in the class "
            f"{'folder' if len(empty) == 1 else 'folders'} {and_more(list(map(printable, empty)), _LISTED)}; "
            + (f"there are only {others}; " if others else "")
            + f"fill or remove, {layouts}"
        )
    for name in sorted({name for name in classes if printable(name) != name}):
        log.warning(
            "%s: the name of the folder %s is not UTF-8 (or holds control characters), so this is what the class is "
            "called; to change that, rename it (convmv does, for many)",
            listing.where,
            printable(name),
        )
    return Labelled(rows, [printable(name) for name in classes])


def unread_table(listing: Listing) -> str:
    """A sentence where a table lies beside the images, which somebody expects to be read; else empty."""
    tables = [path for path in listing.paths if ending(path) in _TABLES]
    if not tables:
        return ""
    return (
        f". {printable(tables[0])} is a table, which is not read: sort the images into a folder per class, or export "
        "objects as COCO or YOLO"
    )


def _check_no_splits(listing: Listing, at: str, tops: list[str]) -> None:
    """Splits would pass for classes, and be learnt very well."""
    kinds = {top: name.kind for top in tops if (name := read_split(top))}
    if len(set(kinds.values())) > 1 or (kinds and len(kinds) == len(tops)):
        raise InputError(
            f"{listing.where}: {and_more([at + top for top in kinds], _LISTED)} look like splits of the data, not like "
            "classes; expected are SPLIT/CLASS/*.jpg with a train split, such as train/cat/1.jpg and "
            "validation/cat/2.jpg. Give one split alone by its folder or with --split, or rename what are classes"
            f"{unread_table(listing)}"
        )


def _has_label_files(paths: Sequence[str]) -> bool:
    """Whether a text file is called like an image."""
    images = {PurePosixPath(path).stem for path in paths if is_image(path)}
    return any(path.lower().endswith(".txt") and PurePosixPath(path).stem in images for path in paths)


def _check_no_masks(listing: Listing, at: str, tops: list[str]) -> None:
    """Images beside their masks would pass for two classes."""
    if len(tops) > 1 and all(_OF_OBJECTS.fullmatch(top) for top in tops):
        paths = [path for path in listing.paths if path.startswith(at)]
        others = endings(path for path in paths if not is_image(path))
        if _has_label_files(paths):
            advice = (
                "YOLO's label files need the names of the classes: write them into classes.txt beside the folders, a "
                "line each"
            )
        elif others[".json"] or others[".xml"]:
            advice = (
                "The .json or .xml files there are not of COCO, LabelMe, Pascal VOC, VIA or Label Studio, which are "
                "read: export one of these"
            )
        else:
            advice = "Masks as images are not read: convert them to COCO's run lengths (pycocotools.mask.encode)"
        raise InputError(
            f"{listing.where}: {and_more([printable(at + top) for top in tops], _LISTED)} look like images beside "
            f"their masks or annotations, not like classes. {advice}. If these are the classes, rename one of them"
        )


def _check_no_level_too_many(listing: Listing, at: str, tops: list[str]) -> None:
    """Folders that hold the same folders are rarely classes: an unknown name of a split, or a level too many."""
    inside: dict[str, set[str]] = {top: set() for top in tops}
    for path in [*listing.folders, *_parents(listing.paths)]:
        parts = path[len(at) :].split("/") if path.startswith(at) else []
        if len(parts) > 1:
            inside[parts[0]].add(parts[1])
    if len(inside) < 2:
        return
    common, together = set.intersection(*inside.values()), set.union(*inside.values())
    if not common or 2 * len(common) < len(together):
        return
    shared = sorted(map(printable, common))
    splits = [name for name in shared if read_split(name)]
    if splits:
        reason = f"the classes stand above the splits; expected is the other way round, {splits[0]}/{tops[0]}/*.jpg"
    elif len(shared) == 1:
        reason = f"{shared[0]} is a level too many; expected is CLASS/*.jpg"
    else:
        reason = (
            f"the classes are {and_more(shared, 4)}, and the folders above them splits or groups; name splits train "
            "and validation, merge groups"
        )
    above = and_more([printable(at + top) for top in tops], 4)
    raise InputError(
        f"{listing.where}: the folders {above} all hold the same folders ({and_more(shared, 4)}), so they may not be "
        f"the classes. The likely reason: {reason}. If {above} are the classes, move their images up out of these "
        "folders"
    )


# Tars


def _with_tar_names(listing: Listing) -> Listing:
    """The same files, those of a tar without folders in one named after it: a tar per class is as good as a folder."""
    if not listing.tars:
        return listing
    folders: dict[str, set[str]] = {}
    for tar, path in zip(listing.tars, listing.paths, strict=True):
        if is_image(path):
            folders.setdefault(tar, set()).add(_parent(path))
    one_folder = len(folders) > 1 and len(set.union(*folders.values())) == 1  # cat.tar and dog.tar with images/1.jpg
    flat = [tar for tar, inside in folders.items() if one_folder or inside == {""}]
    if not flat:
        return listing
    if is_numbered(flat) or all(read_shard(tar) for tar in flat):
        raise InputError(
            f"{listing.where}: nothing says which classes the images have. They lie without folders in "
            f"{and_more([f'{tar}.tar' for tar in sorted(flat)], 3)}, and no .cls files lie beside them; expected is "
            "WebDataset's 0001.jpg with 0001.cls (a number or a name; or 0001.json with a label), CLASS/*.jpg inside, "
            "or a tar named after each class"
        )
    paths = [
        f"{tar}/{path.rpartition('/')[2]}" if tar in flat else path
        for tar, path in zip(listing.tars, listing.paths, strict=True)
    ]
    return replace(listing, paths=paths, folders=[] if one_folder else listing.folders)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


# Label files


def _from_label_files(listing: Listing, images: list[int]) -> Labelled | None:
    """None where there are none. A .json counts only where no folder says the class, and only with a label."""
    for suffix, read in ((".cls", _read_cls), (".json", _read_json)):
        files = {_key(listing, row): row for row, path in enumerate(listing.paths) if ending(path) == suffix}
        if not files or (suffix == ".json" and any("/" in listing.paths[row] for row in images)):
            continue
        chosen = {key: row for key, row in _image_per_key(listing, images).items() if key in files}
        if not chosen:
            continue
        labels: list[str] = []
        for key in chosen:
            name = read(listing, files[key])
            if name is None:  # metadata, not a label
                break
            labels.append(name)
        else:
            _report_unlabelled(listing, len(images) - len(chosen), suffix)
            log.info("%s: the classes are read from the %s files", listing.where, suffix)
            return Labelled(list(chosen.values()), _named(listing, labels))
    return None


def _key(listing: Listing, row: int) -> tuple[str, str]:
    """WebDataset: the files of one sample have one name up to the first dot of the last part."""
    folder, _, name = listing.paths[row].rpartition("/")
    return (listing.tars[row] if listing.tars else ""), f"{folder}/{name.partition('.')[0]}"


def _image_per_key(listing: Listing, images: list[int]) -> dict[tuple[str, str], int]:
    """0001.jpg rather than 0001.mask.png."""
    by_ending = sorted(images, key=lambda row: (PurePosixPath(listing.paths[row]).name.count("."), listing.paths[row]))
    chosen: dict[tuple[str, str], int] = {}
    for row in by_ending:
        chosen.setdefault(_key(listing, row), row)
    return chosen


def _read_cls(listing: Listing, row: int) -> str | None:
    with listing.store.open(row) as file:
        content = file.read(1000)
    try:
        name = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable():
        raise InputError(
            f"{listing.where}: {printable(listing.store.name(row))} is not a label: it holds {content[:40]!r}, "
            "expected the number or the name of a class"
        )
    return _canonical(name)


def _read_json(listing: Listing, row: int) -> str | None:
    with listing.store.open(row) as file:
        found = label_of_json(file.read())
    if isinstance(found, bool) or not isinstance(found, int | str) or not str(found).strip():
        return None
    return printable(_canonical(str(found).strip()))


def label_of_json(content: bytes) -> Any:
    """What "label" is in an object; None where there is none."""
    try:
        record = parse_json(content)
    except (ValueError, RecursionError):
        return None
    return record.get("label") if isinstance(record, dict) else None


def _canonical(name: str) -> str:
    """007 and 7 are one class."""
    return str(int(name)) if re.fullmatch(r"[0-9]{1,9}", name) else name


def _report_unlabelled(listing: Listing, count: int, suffix: str) -> None:
    if count:
        log.warning(
            "%s: %d images are left out: they have no %s file, or are the second image of one",
            listing.where,
            count,
            suffix,
        )


def _named(listing: Listing, labels: list[str]) -> list[str]:
    """Names instead of numbers, where a file beside the shards gives them."""
    if not all(name.isdecimal() for name in labels):
        return labels
    found = listing.find_text(CLASS_NAME_FILES)
    if found is None:
        return labels
    file = found.where
    names = [line.strip() for line in found.text.splitlines()]
    while names and not names[-1]:
        names.pop()
    highest = max(map(float, labels))  # of any number of digits
    if highest >= len(names) or not all(names):
        raise InputError(
            f"{file} has names for {len(names)} classes, one per line, but {listing.where} has images of class "
            f"{highest:.0f}; expected are {highest + 1:.0f} names or more, none of them empty, or no such file"
        )
    if len(set(names)) < len(names):
        log.warning("%s: names occur twice in %s, so the classes keep their numbers", listing.where, file)
        return labels
    log.info("%s: the names of the classes are those of %s", listing.where, file)
    return [printable(names[int(name)]) for name in labels]
