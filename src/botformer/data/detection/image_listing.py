"""Files below a folder, links and all, and the images among them."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from botformer.text import and_more

log = logging.getLogger("botformer.data")

IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm",
)  # fmt: skip
"""Endings of image files, in upper or lower case."""

_NO_IMAGES = {"", ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".csv", ".md", ".cache", ".data", ".names", ".db"}
"""Endings of what lies beside images and could not be one."""

_HIDDEN = ("@eaDir", "__MACOSX")


def list_files(folder: Path) -> list[str]:
    """Paths of all files below `folder`, with slashes, sorted. Hidden ones are left out.

    Links to folders are followed and keep their names. A folder is listed once, by its own path before that of a link,
    so that links in a circle end.
    """
    found: list[str] = []
    links: list[tuple[str, str]] = [(str(folder), "")]
    seen: set[tuple[int, int]] = set()
    while links:
        folders = [links.pop(0)]
        while folders:
            path, name = folders.pop()
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                log.info("%s: the folder %s is there under another name and is listed once", folder, name)
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith(".") or entry.name in _HIDDEN:
                        continue
                    if entry.is_dir():
                        inside = (entry.path, f"{name}{entry.name}/")
                        (links if entry.is_symlink() else folders).append(inside)
                    elif entry.is_file():
                        found.append(name + entry.name)
    return sorted(found)


def is_image(name: str) -> bool:
    """By its ending."""
    return name.lower().endswith(IMAGE_ENDINGS)


def list_images(folder: Path) -> list[str]:
    """The images of `list_files`. Of other files, those that may be images too are counted in the log."""
    names = list_files(folder)
    endings = Counter(os.path.splitext(name)[1].lower() for name in names if not is_image(name))
    others = [f"{count} {ending}" for ending, count in endings.most_common() if ending not in _NO_IMAGES]
    if others:
        log.warning("%s: files left out that are no images by their ending: %s", folder, and_more(others, 10))
    return [name for name in names if is_image(name)]


def log_left_out(where: str, names: Sequence[str], what: str) -> None:
    """Say how many there are, and which the first are; nothing where there are none."""
    if names:
        log.warning("%s: %d %s, such as %s", where, len(names), what, and_more(list(names), 3))
