"""Which images `botformer predict` means: files, folders, patterns, lists, tars; and what their drawings are called."""

import codecs
import glob
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatch
from hashlib import sha256
from itertools import chain, count, takewhile
from pathlib import Path, PurePath

from botformer.atomic_write import atomic_file
from botformer.data.classification.tars import tar_files
from botformer.data.image_files import (
    EXTENSIONS,
    FoundFiles,
    endings,
    find_files,
    is_hidden,
    is_image,
    report_left_out,
    report_links,
)
from botformer.data.image_io import FORMATS, image_ending
from botformer.errors import InputError
from botformer.predict.tar_members import is_tar
from botformer.read_file import at_home, read_bytes
from botformer.text import counted

log = logging.getLogger("botformer.predict")

_STANDARD_INPUT = Path("-")
_LONGEST_NAME = 255
"""Bytes of a file's name on nearly every file system."""
_LISTED = 8
_ADDRESS = re.compile(r"(https?|ftp|s3|gs|file):/", re.IGNORECASE)
"""With one slash: a path loses the second."""
_DRAWING = re.compile(r"\.(prediction|attention)(-\d+)?\.png$")
"""As `DrawingNames` makes them."""


def list_images(paths: Sequence[Path], out: Path, standard_input: Callable[[], bytes] | None = None) -> list[Path]:
    """The images and tars among `paths`, in the folders and lists (.txt) among them, and those that fit patterns
    (*.jpg, scans/**/*.png), in order. Drawings that an earlier prediction left in `out`, one of these folders or a
    folder within one, are left out. What a list names and is not there stays in it, unless all of it is not.

    Args:
        standard_input: reads it; it is what the path "-" means.

    Raises:
        InputError: a path that does not exist, a folder without images, a pattern that nothing fits, or no path at all.
    """
    files = list(chain.from_iterable(_images_of(at_home(path), out, standard_input) for path in paths))
    if not files:
        raise InputError("name at least one image: botformer predict IMAGE...")
    return list(dict.fromkeys(files))


def _images_of(path: Path, out: Path, standard_input: Callable[[], bytes] | None) -> list[Path]:
    if path == _STANDARD_INPUT and standard_input is not None:
        return _images_listed(from_standard_input(standard_input(), out), out)
    if _ADDRESS.match(str(path)):
        raise InputError(
            f"{path} is an address, and nothing is downloaded: give the file, or pipe it (curl ... | ... -)"
        )
    if path.is_dir():
        return _images_in(path, out)
    if path.is_file():
        return _images_listed(_from_list(path), out) if path.suffix.lower() == ".txt" else [path]
    if glob.has_magic(str(path)):
        return _images_like(str(path), out)
    raise InputError(
        f"{path} does not exist; expected an image, a folder of images, or a pattern such as *.jpg; or a tar of "
        "images, or a .txt file with a path per line"
    )


def _images_listed(paths: Sequence[Path], out: Path) -> list[Path]:
    files: list[Path] = []
    missing: InputError | None = None
    for path in paths:
        try:
            files += [path] if path.suffix.lower() == ".txt" else _images_of(at_home(path), out, None)
        except InputError as error:
            missing = missing or error
            files.append(path)
    if missing and not any(path.exists() for path in files):
        raise missing
    return files


def _from_list(file: Path) -> list[Path]:
    """The paths in a file, one per line; those that do not lie in the working directory may lie beside the file."""
    paths = _lines(read_bytes(file), str(file))
    beside = [file.parent / path for path in paths]
    return [other if not path.exists() and other.exists() else path for path, other in zip(paths, beside, strict=True)]


def _images_in(folder: Path, out: Path) -> list[Path]:
    found = find_files(folder)
    report_links(folder, found)
    report_left_out(folder, [name for name in found.files if not is_image(name)])
    files = [folder / name for name in sorted(found.files, key=lambda name: name.split("/")) if is_image(name)]
    files = _without_drawings(files, folder, out)
    files = files or [tar for tar in tar_files(folder) if is_tar(tar.name)]
    if not files:
        others = counted(endings(found.files), _LISTED)
        raise InputError(
            f"{folder} holds no images ({', '.join(EXTENSIONS)})" + (f"; the files there: {others}" if others else "")
        )
    return files


def _images_like(pattern: str, out: Path) -> list[Path]:
    """Images that fit a pattern of the shell, which Windows and quotation marks leave to the program."""
    asked = Path(pattern).parts  # a hidden folder that is named is meant
    named = Path(*takewhile(lambda part: not glob.has_magic(part), asked))
    while len(named.parts) < len(asked) - 1 and (there := named / asked[len(named.parts)]).exists():
        named = there  # scan [2024] is that folder where there is one
    fitting = sorted(set(_fitting(named, asked[len(named.parts) :])))
    found = [
        path for path in fitting if path.is_file() and not any(is_hidden(p) and p not in asked for p in path.parts)
    ]
    images = [path for path in found if is_image(path.name) or is_tar(path.name)]
    images = _without_drawings(images, named, out)
    if not images:  # folders count where their images do not fit by themselves, as in day*
        images = [file for path in fitting if path.is_dir() for file in _images_in(path, out)]
    else:
        report_left_out(pattern, [path.name for path in found if not (is_image(path.name) or is_tar(path.name))])
    if not images:
        others = counted(endings(path.name for path in found), _LISTED)
        raise InputError(
            f"no image fits {pattern} in {Path.cwd()}; tried were files with the endings {', '.join(EXTENSIONS)}, and "
            + (f"what fits is {others}" if others else "folders")
        )
    return images


def _without_drawings(files: Sequence[Path], top: Path, out: Path) -> list[Path]:
    """Of files in the folder `top` those that no earlier prediction drew into `out`: a folder of drawings within, or
    the very folder in which images lie."""
    drawings = out.resolve()
    if top.resolve() in drawings.parents:
        return [file for file in files if drawings not in file.resolve().parents]
    drawn = {file for file in files if _DRAWING.search(file.name) and file.resolve().parent == drawings}
    if drawn:
        log.info("%s has %d drawings of an earlier prediction, which are left out", out, len(drawn))
    return [file for file in files if file not in drawn]


def _fitting(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """Files and folders below. `glob` would follow a link to a parent folder 40 times, and two of them for ever."""
    at = parts.index("**") if "**" in parts else len(parts)
    tops = map(Path, glob.glob(os.path.join(glob.escape(str(folder)), *parts[:at]))) if at else [folder]
    if at == len(parts):
        yield from tops
        return
    for top in tops:
        found = find_files(top) if top.is_dir() else FoundFiles()
        report_links(top, found)
        yield from (top / name for name in (*found.files, *found.folders) if _fits(name.split("/"), parts[at:]))


def _fits(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path fits, part by part; `**` is any number of parts."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_fits(parts[place:], patterns[1:]) for place in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])


def from_standard_input(data: bytes, out: Path) -> list[Path]:
    """The images that `data` gives: one image's bytes, which are kept in `out` under the name stdin-HASH, or a list of
    paths, one per line or each ended by a NUL character (find -print0), whatever is in them.

    Raises:
        InputError: neither.
    """
    if ending := image_ending(data):
        out.mkdir(parents=True, exist_ok=True)
        image = out / f"stdin-{sha256(data).hexdigest()[:12]}{ending}"  # another image does not replace it
        with atomic_file(image) as unfinished:
            unfinished.write_bytes(data)
        return [image]
    return _lines(data, "standard input")


def _lines(data: bytes, where: str) -> list[Path]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as PowerShell writes lists
        data = os.fsencode(data.decode("utf-16", errors="replace"))
    data = data.removeprefix(codecs.BOM_UTF8)
    lines = data.split(b"\0") if b"\0" in data else map(bytes.strip, data.splitlines())
    paths = [os.fsdecode(line) for line in lines if line]
    if not paths:
        raise InputError(f"{where} is empty; expected the bytes of one image, or paths of images, one per line")
    if data.startswith(b"\0") or any(byte < 9 or 13 < byte < 32 for byte in data[:512] if byte):
        raise InputError(
            f"{where} is neither an image that can be read ({', '.join(FORMATS)}) nor a list of paths; it begins with "
            f"{data[:16]!r}"
        )
    return list(map(Path, paths))


class DrawingNames:
    """Names OUT/NAME.KIND.png for drawings, numbered where several images have one name; never one of the images
    themselves. Names that would be too long for a file system are cut."""

    def __init__(self, files: Iterable[Path], out: Path) -> None:
        folder = out.resolve()
        inside = {parent for parent in {file.parent for file in files} if parent.resolve() == folder}
        self._taken = {file.resolve() for file in files if file.parent in inside} if inside else set()

    def take(self, drawing: Path) -> None:
        """Give this name to no other image."""
        self._taken.add(drawing.resolve())

    def new(self, out: Path, name: str, kind: str) -> Path:
        """For an image of this name, which may be a path. Every call gives another one."""
        suffixes = (f".{kind}{number}.png" for number in chain([""], (f"-{n}" for n in count(2))))
        stem = PurePath(name).stem
        names = (_shortened(stem, _LONGEST_NAME - len(suffix)) + suffix for suffix in suffixes)
        drawing = next(out / each for each in names if (out / each).resolve() not in self._taken)
        self.take(drawing)
        return drawing


def _shortened(name: str, length: int) -> str:
    """The beginning, of `length` bytes at most."""
    while len(os.fsencode(name)) > length:
        name = name[:-1]
    return name
