"""Which files of a folder are images: by their endings, without those of operating systems, each real folder once."""

import logging
import os
import re
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from botformer.text import and_more, counted, printable

log = logging.getLogger("botformer.data")

EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm",
    ".pbm", ".pnm", ".pfm", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".apng",
)  # fmt: skip
"""Endings of image files, in upper or lower case: those of the formats that `image_io` opens. JPEG 2000, AVIF and HEIC
are not among them: not every Pillow can decode them, so a data set would have other images on another machine."""

_HIDDEN = {
    "__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "@tmp", "$recycle.bin", "system volume information",
    "lost+found", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__pycache__",
}  # fmt: skip
"""Files and folders that operating systems and network storage leave, besides those that begin with a dot."""

_SHOWN = 8
_Identity = tuple[int, int]


def is_hidden(name: str) -> bool:
    """Whether a relative path leads to what systems and tools leave: .DS_Store, ._photo.jpg, @eaDir/..., Thumbs.db."""
    return any(part.startswith(".") or part.lower() in _HIDDEN for part in PurePosixPath(name).parts)


def ending(name: str) -> str:
    """The last ending in lower case, with its dot; "" where there is none."""
    return os.path.splitext(name)[1].lower()


def is_image(name: str) -> bool:
    return ending(name) in EXTENSIONS


@dataclass
class FoundFiles:
    """What lies in a folder, hidden files left out. Paths are relative, with slashes."""

    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    """Links to folders that contain the link, or that were read already: not read again."""
    shared: list[str] = field(default_factory=list)
    """Folders that were read below another child of the root, too."""
    special: list[str] = field(default_factory=list)
    """Pipes, sockets and devices, which nobody may open."""


def find_files(root: Path) -> FoundFiles:
    """All files below `root`, in an order that depends on the names alone.

    Links to folders are followed. Below one child of `root` each real folder is read once, and one that contains `root`
    never: a link to a parent would be followed for ever.
    """
    found = FoundFiles()
    real = Path(os.path.realpath(root))
    above = {_identity(folder) for folder in (real, *real.parents)}
    owner: dict[_Identity, str] = {}
    children, linked_children = _read_folder(root, "", found)
    for child in children + linked_children:
        seen = set(above)
        folders, links = deque([child]), deque[str]()
        while folders or links:  # the links last: of two ways to a folder the one without links counts
            folder = folders.popleft() if folders else links.popleft()
            identity = _identity(root / folder)
            if identity in seen:
                found.repeated.append(folder)
                continue
            seen.add(identity)
            if owner.setdefault(identity, child) != child:
                found.shared.append(folder)
            found.folders.append(folder)
            below, linked = _read_folder(root, folder, found)
            folders.extend(below)
            links.extend(linked)
    return found


def _read_folder(root: Path, folder: str, found: FoundFiles) -> tuple[list[str], list[str]]:
    """Note the files of one folder; returns its folders, and the links to folders."""
    folders: list[str] = []
    links: list[str] = []
    with os.scandir(root / folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if is_hidden(entry.name):
                continue
            name = f"{folder}/{entry.name}" if folder else entry.name
            if not os.path.exists(entry.path):  # a link to nowhere, or in a circle, fails when it is read
                found.files.append(name)
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(name)
            elif entry.is_file():
                found.files.append(name)
            else:
                found.special.append(name)
    return folders, links


def _identity(folder: Path) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def folder_of(root: Path, name: str) -> Path | None:
    """The folder of that name in `root`, in any case, with a year behind it or none."""
    pattern = re.compile(rf"{re.escape(name)}\d*", re.IGNORECASE)
    found = sorted(
        each for each in (root.iterdir() if root.is_dir() else ()) if pattern.fullmatch(each.name) and each.is_dir()
    )
    return next((each for each in found if each.name == name), found[0] if found else None)


def report_left_out(where: object, names: Iterable[str]) -> None:
    """Say how many files were left out, by their endings."""
    if counts := endings(names):
        log.warning(
            "%s: %d files are left out because of their endings: %s. Convert those that are images to .jpg or .png",
            where,
            counts.total(),
            counted(counts, _SHOWN),
        )


def endings(names: Iterable[str]) -> Counter[str]:
    """How many files have each ending."""
    return Counter(printable(ending(name)) or "without an ending" for name in names)


def report_links(where: object, found: FoundFiles) -> None:
    """Say which links were not followed, and what else is odd about the folders."""
    for what, names in (
        ("links to folders that are read already, or that contain the link, are not followed", found.repeated),
        ("folders are links to those of another class: their images count for both", found.shared),
        ("pipes, sockets or devices are left out", found.special),
    ):
        if names:
            log.warning("%s: %d %s: %s", where, len(names), what, and_more(list(map(printable, names)), _SHOWN))
