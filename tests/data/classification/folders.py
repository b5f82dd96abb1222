"""Small image folders, made on the spot."""

import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(root: Path, classes: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
    """ROOT/CLASS/NN.png; every image is noise of its own."""
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            rng = np.random.default_rng((number, index))
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:02}.png")
    return root


def write_tar(path: Path, folder: Path) -> Path:
    """A tar of a folder's contents."""
    with tarfile.open(path, "w") as tar:
        for entry in sorted(folder.iterdir()):
            tar.add(entry, entry.name)
    return path
