"""Instance segmentation data in the package: the nuclei of one micrograph of BBBC038, to train and to evaluate on.

Training sees overlapping crops of the left three quarters, evaluation the right strip: they have no pixel in common. It
is one image and no benchmark; bbbc038/PROVENANCE.md says where it is from.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from botformer.data.detection.coco_writer import CocoWriter
from botformer.data.detection.dataset import Category
from botformer.data.synthetic.cached_dataset import cached_dataset

NUCLEUS = Category(1, "nucleus")
STRIP_FROM_PX = 384  # the first column of the evaluation strip
CROP_PX = 192
STEP_PX = 32  # from crop to crop: most nuclei are whole in several of them
BORDER_PX = 2  # outlines of nuclei that the micrograph's edge cuts often stop one pixel short of it
MIN_AREA_PX = 20  # whole nuclei have 85 or more, the smallest outline, at the edge, 25; fewer pixels show no nucleus
GENERATOR = 1  # counts the versions of this file that write different images or objects

_ABOUT = (
    "One fluorescence micrograph with 125 nuclei outlined by people (BBBC038v1, 2018 Data Science Bowl, CC0). Training "
    "images are overlapping crops of its left three quarters; the right strip is for evaluation, and nuclei that its "
    "border cuts are crowds there, which count neither for nor against. One image, not a benchmark."
)


def read_nuclei() -> tuple[np.ndarray, np.ndarray]:
    """The whole micrograph: grey levels and labels, both uint8 (512, 512). Label 0 is background, others a nucleus."""
    return _read("nuclei.png"), _read("nuclei_labels.png")


def write_nuclei(folder: Path) -> bool:
    """Write the nuclei as an ordinary COCO folder, and describe them in FOLDER/nuclei.json.

    FOLDER/train holds 77 crops of 192 x 192 pixels, FOLDER/val the strip of 512 x 128; FOLDER/annotations has
    `instances_train.json` and `instances_val.json`. A nucleus that a training crop cuts is its visible part, unless
    fewer than `MIN_AREA_PX` pixels are left; one that reaches into the outermost `BORDER_PX` pixels of the strip may be
    cut and is a crowd there, so it counts neither as a false negative nor makes a detection a false positive. The
    bytes are the same at every call. The folder is created atomically; a finished one is used as it is. Returns whether
    it was written now.

    Raises `InputError` for a folder that holds something else.
    """
    parameters = {"crop_px": CROP_PX, "step_px": STEP_PX, "generator": GENERATOR}
    return cached_dataset(folder, "nuclei", parameters, {"train": 77, "val": 1}, _write)


def _write(folder: Path) -> Mapping[str, Any]:
    image, labels = read_nuclei()
    train, validation = CocoWriter([NUCLEUS]), CocoWriter([NUCLEUS])
    for name in ("train", "val"):
        (folder / name).mkdir()
    for top in range(0, image.shape[0] - CROP_PX + 1, STEP_PX):
        for left in range(0, STRIP_FROM_PX - CROP_PX + 1, STEP_PX):
            window = np.s_[top : top + CROP_PX, left : left + CROP_PX]
            file = f"row{top:03d}_column{left:03d}.png"
            _add(train, folder / "train" / file, image[window])
            for mask in _masks(labels[window]):
                if np.count_nonzero(mask) >= MIN_AREA_PX:
                    train.add_object(mask, NUCLEUS)
    strip = np.s_[:, STRIP_FROM_PX:]
    _add(validation, folder / "val" / "strip.png", image[strip])
    for mask in _masks(labels[strip]):
        validation.add_object(mask, NUCLEUS, crowd=_may_be_cut(mask))
    train.save(folder / "annotations" / "instances_train.json")
    validation.save(folder / "annotations" / "instances_val.json")
    return {"about": _ABOUT}


def _add(writer: CocoWriter, file: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(file)
    writer.add_image(file.name, *pixels.shape)


def _masks(labels: np.ndarray) -> list[np.ndarray]:
    """bool, as large as the labels: one per nucleus, in the order of their labels."""
    return [labels == label for label in np.unique(labels) if label]


def _may_be_cut(mask: np.ndarray) -> bool:
    inner = mask[BORDER_PX:-BORDER_PX, BORDER_PX:-BORDER_PX]
    return bool(np.count_nonzero(inner) < np.count_nonzero(mask))


def _read(name: str) -> np.ndarray:
    with files("botformer.data.synthetic").joinpath("bbbc038", name).open("rb") as file, Image.open(file) as image:
        return np.asarray(image)
