"""Folders with splits in them, as folders or as tars, and folders of classes."""

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from botformer.data.classification.listing import Listing, text_beside
from botformer.data.classification.split_names import SplitName, paired, read_shard, read_split, read_splits
from botformer.data.classification.splits import LAYOUTS, Splits, splits_inside
from botformer.data.classification.tars import list_tars, tar_files
from botformer.data.image_files import find_files, is_hidden, is_image, report_links
from botformer.errors import InputError
from botformer.read_file import at_home, open_file
from botformer.text import and_more, printable

log = logging.getLogger("botformer.data")

_SHOWN = 10


def open_folder(data: str) -> Splits:
    """A folder or a tar, and the splits in it. A folder is no split if it holds neither folders nor tars: "test" may be
    a class.

    Raises:
        InputError: there is no such thing, or a tar cannot be listed.
    """
    at = at_home(data)
    if not at.exists():
        raise InputError(f"data folder {at} does not exist; {LAYOUTS}")
    if at.is_file():
        if at.suffix.lower() == ".parquet":
            raise InputError(f"{at} is a file; give its folder, {at.parent}: all Parquet files there are read")
        if at.suffix.lower() != ".tar":
            raise InputError(
                f"{at} is a file, not a folder or a .tar (unpack a zip or a compressed tar first); {LAYOUTS}"
            )
        return splits_inside(list_tars(str(at), [at], at), str(at))
    at = _unwrapped(at)
    tars: dict[str, list[Path]] = {}
    shards: dict[SplitName, str] = {}
    for tar in tar_files(at):
        if shard := read_shard(tar.stem):
            tars.setdefault(shards.setdefault(shard, tar.stem), []).append(tar)
    names = {name: shard for shard, name in shards.items()}
    folders = read_splits(_visible_folders(at))
    names = {name: split for name, split in names.items() if split not in folders.values()}  # unpacked beside
    names |= {name: split for name, split in folders.items() if _holds_classes(at / name)}
    return Splits(
        str(at),
        paired(names),
        listing=lambda name: _listing(at, name, tars.get(name, [])),
        whole=lambda: _list_folder(at),
        entries=lambda: (printable(entry.name) for entry in at.iterdir()),
        has=lambda name: (at / name).is_dir() or (at / f"{name}.tar").is_file(),
    )


def _listing(at: Path, name: str, tars: list[Path]) -> Listing:
    """Of a split: a folder, shards beside each other, or a tar."""
    if (at / name).is_dir():
        return _list_folder(at / name)
    if tars:
        return list_tars(str(at / tars[0].name), tars, tars[0] if len(tars) == 1 else at)
    tar = at / f"{name}.tar"
    return list_tars(str(tar), [tar], tar)


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
    return Listing(str(root), partial(text_beside, root), _Files(str(root), found.files), found.files, found.folders)


@dataclass(frozen=True)
class _Files:
    root: str
    names: list[str]

    def open(self, row: int) -> BinaryIO:
        return open_file(os.path.join(self.root, self.names[row]))

    def name(self, row: int) -> str:
        return self.names[row]
