"""Which images are predicted, and the files that say what was predicted; for classifiers and detectors alike."""

import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from PIL import Image

from botformer.atomic_write import atomic_file, write_json, write_text
from botformer.data.detection.coco_writer import coco_layout
from botformer.data.detection.dataset import ImageId
from botformer.data.detection.keypoints import NO_KEYPOINTS, KeypointLayout
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
from botformer.data.image_io import FORMATS, EncodedImage, decode, image_ending, open_image
from botformer.errors import InputError
from botformer.text import counted

PREDICTIONS, IMAGES = "predictions.json", "images.json"
_LONGEST_NAME = 255
"""Bytes of a file's name on nearly every file system."""
_LISTED = 8


def read_image(file: Path, max_megapixels: float) -> tuple[Image.Image, Image.Image | EncodedImage]:
    """The whole image, to be drawn, and what the network gets: JPEG decoded no larger than needed, as in an evaluation.

    Raises `BadImage` as `decode`.
    """
    image = decode(file, file.name, max_megapixels)
    with file.open("rb") as stream:
        encoded = open_image(stream, file.name, max_megapixels)
    # Files of other formats are not decoded twice: their pixels are the same. The bytes of JPEG are read by now.
    return image, encoded if encoded.header.format == "JPEG" else image


@dataclass
class Predictions:
    """What was predicted on some images, and which images they were."""

    categories: Sequence[tuple[int, str]]
    """(id, name): the data set's ids for a detector, the places of the classes from 0 for a classifier."""
    layout: KeypointLayout = NO_KEYPOINTS
    """The key points of a key point detector."""
    records: list[Mapping[str, Any]] = field(default_factory=list)
    """COCO's results of a detector; one `classification.metrics.ImagePrediction` per image of a classifier."""
    images: list["PredictedImage"] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)
    """File -> why it could not be read."""

    def add_image(self, image_id: ImageId, file: Path, image: Image.Image, drawing: Path) -> None:
        """Note that `image` was read from `file`, and that what was predicted on it is drawn in `drawing`."""
        self.images.append(PredictedImage(image_id, file.as_posix(), image.width, image.height, drawing.name))

    def write(self, folder: Path) -> None:
        """Write predictions.json, the records, and images.json, everything else."""
        images = {
            "images": [asdict(image) for image in self.images],
            "categories": [{"id": number, "name": name} | coco_layout(self.layout) for number, name in self.categories],
            "unreadable": [{"file_name": file.as_posix(), "reason": why} for file, why in self.unreadable.items()],
        }
        # On one line: a detector finds hundreds of thousands of objects on some data sets.
        write_text(folder / PREDICTIONS, json.dumps(self.records, ensure_ascii=False) + "\n")
        write_json(folder / IMAGES, images)


@dataclass(frozen=True)
class PredictedImage:
    """A record of images.json."""

    id: ImageId
    """`image_id` of a detector's records."""
    file_name: str
    width: int
    height: int
    """In pixels, upright."""
    drawing: str
    """Name of the file that shows what was predicted."""


def list_images(paths: Sequence[Path], out: Path) -> list[Path]:
    """The images among `paths`, in the folders among them, and those that fit patterns (*.jpg, scans/**/*.png), in
    order. Drawings that an earlier prediction left in `out`, a folder within one of these, are left out.

    Raises:
        InputError: a path that does not exist, a folder without images, a pattern that nothing fits, or no path at all.
    """
    files: list[Path] = []
    for path in paths:
        path = path.expanduser()
        if path.is_dir():
            files += _images_in(path, out)
        elif path.is_file():
            files.append(path)
        elif glob.has_magic(str(path)):
            files += _images_like(str(path), out)
        else:
            raise InputError(
                f"{path} does not exist; expected an image, a folder of images, or a pattern such as *.jpg"
            )
    if not files:
        raise InputError("name at least one image: botformer predict IMAGE...")
    return list(dict.fromkeys(files))


def _images_in(folder: Path, out: Path) -> list[Path]:
    found = find_files(folder)
    report_links(folder, found)
    report_left_out(folder, [name for name in found.files if not is_image(name)])
    drawings = out.resolve() if folder.resolve() in out.resolve().parents else None
    files = [folder / name for name in sorted(found.files, key=lambda name: name.split("/")) if is_image(name)]
    if drawings:
        files = [file for file in files if drawings not in file.resolve().parents]
    if not files:
        others = counted(endings(found.files), _LISTED)
        raise InputError(
            f"{folder} holds no images ({', '.join(EXTENSIONS)})" + (f"; the files there: {others}" if others else "")
        )
    return files


def _images_like(pattern: str, out: Path) -> list[Path]:
    """Images that fit a pattern of the shell, which Windows and quotation marks leave to the program."""
    fitting = sorted(set(_fitting(pattern)))
    asked = Path(pattern).parts  # a hidden folder that is named is meant
    found = [
        path for path in fitting if path.is_file() and not any(is_hidden(p) and p not in asked for p in path.parts)
    ]
    images = [path for path in found if is_image(path.name) and out.resolve() not in path.resolve().parents]
    if not images:  # folders count where their images do not fit by themselves, as in day*
        images = [file for path in fitting if path.is_dir() for file in _images_in(path, out)]
    else:
        report_left_out(pattern, [path.name for path in found if not is_image(path.name)])
    if not images:
        others = counted(endings(path.name for path in found), _LISTED)
        raise InputError(
            f"no image fits {pattern} in {Path.cwd()}; tried were files with the endings {', '.join(EXTENSIONS)}, and "
            + (f"what fits is {others}" if others else "folders")
        )
    return images


def _fitting(pattern: str) -> Iterator[Path]:
    """Files and folders. `glob` would follow a link to a parent folder 40 times, and two of them for ever."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from map(Path, glob.glob(pattern))
        return
    at = parts.index("**")
    for top in map(Path, glob.glob(os.path.join(*parts[:at])) if at else [""]):
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
    """The images that `data` gives: one image's bytes, which are kept in `out` under the name stdin, or a list of
    paths, one per line or ended by NUL characters (find -print0).

    Raises:
        InputError: neither.
    """
    if ending := image_ending(data):
        out.mkdir(parents=True, exist_ok=True)
        with atomic_file(out / f"stdin{ending}") as unfinished:
            unfinished.write_bytes(data)
        return [out / f"stdin{ending}"]
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"\n").splitlines()
    paths = [os.fsdecode(line.strip()) for line in lines if line.strip()]
    if not paths:
        raise InputError("standard input is empty; expected the bytes of one image, or paths of images, one per line")
    if data.startswith(b"\0") or any(byte < 9 or 13 < byte < 32 for byte in data[:512] if byte):
        raise InputError(
            f"standard input is neither an image that can be read ({', '.join(FORMATS)}) nor a list of paths; it "
            f"begins with {data[:16]!r}"
        )
    return list(map(Path, paths))


def drawing_files(files: Sequence[Path], out: Path, kind: str) -> list[Path]:
    """OUT/NAME.KIND.png for each file, numbered where several have one name; never one of the images themselves. Names
    that would be too long for a file system are cut."""
    taken = {file.resolve() for file in files}
    drawings = []
    for file in files:
        suffixes = (f".{kind}{number}.png" for number in ("", *(f"-{n}" for n in range(2, len(files) + 2))))
        names = (_shortened(file.stem, _LONGEST_NAME - len(suffix)) + suffix for suffix in suffixes)
        drawing = next(out / name for name in names if (out / name).resolve() not in taken)
        taken.add(drawing.resolve())
        drawings.append(drawing)
    return drawings


def _shortened(name: str, length: int) -> str:
    """The beginning, of `length` bytes at most."""
    while len(os.fsencode(name)) > length:
        name = name[:-1]
    return name
