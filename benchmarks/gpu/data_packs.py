"""Real data sets in few bytes, to travel with the code to a machine without a network.

python -m benchmarks.gpu.data_packs --data DIR [--out build/gpu] [--quick]

DIR holds the zip files of `PACKS`. Writes OUT/NAME.tar.xz for each that is there, and reads it back to compare every
pixel. --quick packs tiny data of its own.
"""

import argparse
import io
import lzma
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image

from botformer.atomic_write import atomic_file, atomic_folder, remove_leftovers
from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.image_io import decode
from botformer.data.synthetic.nuclei_crops import NUCLEUS
from botformer.environment import cores
from botformer.errors import InputError

File = tuple[str, bytes]
"""Name, with slashes, and content."""


def tars_of_splits(source: ZipFile) -> Iterator[File]:
    """SPLIT/CLASS/*.jpg -> SPLIT.tar with CLASS/*.jpg, as training reads it too.

    Two files instead of 60,000 are unpacked in seconds. All JPEG files of CIFAR-10 begin with the same 623 bytes, two
    thirds of each, of which xz keeps one copy.
    """
    names = sorted(name for name in source.namelist() if not name.endswith("/"))
    for split in sorted({name.partition("/")[0] for name in names}):
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w") as tar:
            for name in names:
                if name.startswith(f"{split}/"):
                    add_file(tar, name.removeprefix(f"{split}/"), source.read(name))
        yield f"{split}.tar", whole.getvalue()


def images_as_webp(source: ZipFile) -> Iterator[File]:
    """PNG images as lossless WebP where that is smaller, under their own names: readers go by the content."""
    files = [(name, source.read(name)) for name in sorted(source.namelist()) if not name.endswith("/")]
    with ThreadPool(cores()) as threads:  # Pillow's encoder lets the others run
        yield from threads.imap(as_webp, files)


def as_webp(file: File) -> File:
    name, content = file
    if not name.endswith(".png"):
        return file
    with Image.open(io.BytesIO(content)) as image:
        if image.mode not in ("L", "RGB"):
            return file
        webp = io.BytesIO()
        image.convert("RGB").save(webp, "webp", lossless=True, quality=75, method=5)
    return name, min(content, webp.getvalue(), key=len)


@dataclass(frozen=True)
class Pack:
    source: str
    """Zip file in the folder of data sets."""
    contents: Callable[[ZipFile], Iterable[File]]
    """What of the zip file is packed, and how."""


PACKS = {
    "cifar10": Pack("cifar10_jpeg.zip", tars_of_splits),
    "nuclei": Pack("dsb2018.zip", images_as_webp),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the zip files")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--quick", action="store_true", help="pack tiny data of its own")
    given = parser.parse_args()
    if given.quick:
        write_quick_packs(given.out)
        return 0
    if not given.data:
        parser.error("--data DIR is missing, the folder of " + ", ".join(pack.source for pack in PACKS.values()))
    missing = 0
    for name, pack in PACKS.items():
        zip_file = given.data / pack.source
        if zip_file.is_file():
            path = write_pack(name, zip_file, given.out)
            print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, {zip_file.stat().st_size / 2**20:.1f} as {zip_file}")
        else:
            print(f"no pack {name}: {zip_file} is missing", file=sys.stderr)
            missing += 1
    return min(missing, 1)


def pack_path(packs: Path, name: str) -> Path:
    return packs / f"{name}.tar.xz"


def write_pack(name: str, zip_file: Path, out: Path) -> Path:
    """Write the pack OUT/NAME.tar.xz of a zip file, read it back and compare. The same data give the same bytes.

    Raises:
        InputError: an image came back with other pixels, or not at all; no pack is left.
    """
    path = pack_path(out, name)
    out.mkdir(parents=True, exist_ok=True)
    with ZipFile(zip_file) as source, atomic_file(path) as unfinished:
        with tarfile.open(unfinished, "w:xz", preset=6) as tar:
            for file in PACKS[name].contents(source):
                add_file(tar, *file)
        with tempfile.TemporaryDirectory() as folder:
            check_same(source, unpack(unfinished, Path(folder) / name))
    return path


def unpack(pack: Path, folder: Path) -> Path:
    """The files of a pack in `folder`, which appears once it is complete; one that is there is used as it is.

    Raises:
        InputError: the pack is missing or damaged.
    """
    if folder.is_dir():
        return folder
    if not pack.is_file():
        raise InputError(f"{pack} is missing; make it with python -m benchmarks.gpu.data_packs --data DIR")
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    try:
        with atomic_folder(folder) as unfinished, tarfile.open(pack, "r:xz") as tar:
            tar.extractall(unfinished, filter="data")
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise InputError(f"{pack} is damaged ({error}); copy it here again") from error
    return folder


def add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Time 0 and the default mode: the same files give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def files_of(folder: Path) -> Iterator[File]:
    """All files below an unpacked folder; those in SPLIT.tar as SPLIT/*."""
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    assert content is not None
                    yield f"{path.stem}/{member.name}", content.read()
        elif path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def check_same(source: ZipFile, folder: Path) -> None:
    """Raises `InputError` unless `folder` holds every file of the zip file: the same bytes, or the same pixels."""
    missing = {name for name in source.namelist() if not name.endswith("/")}
    for name, content in files_of(folder):
        if content != source.read(name) and not same_pixels(content, source.read(name), name):
            raise InputError(f"{name} of {source.filename} changed in the pack")
        missing.remove(name)
    if missing:
        raise InputError(f"{len(missing)} files of {source.filename} are not in the pack, such as {min(missing)}")


def same_pixels(one: bytes, other: bytes, name: str) -> bool:
    a, b = (np.asarray(decode(io.BytesIO(content), name)) for content in (one, other))
    return np.array_equal(a, b)


# Tiny data


def write_quick_packs(out: Path) -> None:
    """The packs of a few images each, by the same way."""
    with tempfile.TemporaryDirectory() as folder:
        write_colours(Path(folder) / "cifar10")
        write_discs(Path(folder) / "nuclei")
        for name, pack in PACKS.items():
            root, zip_file = Path(folder) / name, Path(folder) / pack.source
            with ZipFile(zip_file, "w") as written:
                for path in sorted(root.rglob("*.*")):
                    written.write(path, path.relative_to(root).as_posix())
            write_pack(name, zip_file, out)


def write_colours(root: Path) -> None:
    """An image folder like CIFAR-10's: JPEG, 32 px, three classes of noisy colour."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, colour in (("blue", (40, 60, 200)), ("green", (40, 180, 70)), ("red", (210, 50, 40))):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + noise.normal(0, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number:04d}.jpg")


def write_discs(root: Path) -> None:
    """COCO like the nuclei: grey PNG, 64 px, two bright discs each."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    for split, count in (("train", 8), ("val", 4)):
        (root / split).mkdir(parents=True)
        coco = CocoWriter([NUCLEUS])
        for number in range(count):
            pixels = draw.normal(40, 5, (64, 64))
            coco.add_image(f"{number}.png", 64, 64)
            for left in (16, 48):
                y, x, radius = draw.uniform(16, 48), left + draw.uniform(-4, 4), draw.uniform(5, 10)
                disc = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
                pixels[disc] += 120
                coco.add_object(disc, NUCLEUS)
            Image.fromarray(pixels.astype(np.uint8)).save(root / split / f"{number}.png")
        coco.save(root / "annotations" / f"instances_{split}.json")


if __name__ == "__main__":
    sys.exit(main())
