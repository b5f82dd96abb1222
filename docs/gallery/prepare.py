"""The folder in which the lines of the gallery run: the files that they name."""

import json
import shutil
from pathlib import Path

from botformer.data.synthetic import nuclei_crops

_NUCLEI = {
    "dense.png": "150b0ffa318c87b3",
    "sparse.png": "1d5f4717e179a036",
    "large.png": "2c840a94d216f5ef",
    "histology.png": "4d14a3629b6af6de",
    "embryo.png": "f29fd9c52e04403c",
}
_MIXED = ("97126a9791f0", "f952cc653760")
"""To be evaluated: large nuclei and crowded histology."""
_PHOTOGRAPHS = {"can.jpg": "metal/metal133.jpg", "bottle.jpg": "glass/glass355.jpg"}


def prepare(work: Path, data: Path, photos: Path, demo: Path) -> None:
    """Links and copies in `work`, from unpacked data, a run on photographs and the folder of a demo."""
    (work / "runs").mkdir(parents=True, exist_ok=True)
    for link, target in {
        "runs/photos": photos,
        "runs/digits": demo / "digits/run",
        "photos": data / "photos",
    }.items():
        if not (work / link).exists():
            (work / link).symlink_to(target)
    shutil.copy(Path(nuclei_crops.__file__).parent / "bbbc038/nuclei.png", work / "cells.png")
    for name, stem in _NUCLEI.items():
        shutil.copy(data / "dsb2018/val" / f"{stem}.png", work / name)
    (work / "digits").mkdir(exist_ok=True)
    for number in range(16):
        shutil.copy(
            next((demo / "digits/data/validation").glob(f"*/{number:05d}.jpg")), work / "digits" / f"{number:02d}.jpg"
        )
    for name, file in _PHOTOGRAPHS.items():
        shutil.copy(data / "photos/validation" / file, work / name)
    _write_mixed(data / "dsb2018", work / "mixed")


def _write_mixed(source: Path, folder: Path) -> None:
    """A data set of a few images, in COCO's form."""
    whole = json.loads((source / "annotations/instances_val.json").read_text(encoding="utf-8"))
    images = [image for image in whole["images"] if image["file_name"].startswith(_MIXED)]
    ids = {image["id"] for image in images}
    objects = [each for each in whole["annotations"] if each["image_id"] in ids]
    for part in ("val", "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    part = whole | {"images": images, "annotations": objects}
    (folder / "annotations/instances_val.json").write_text(json.dumps(part), encoding="utf-8")
    for image in images:
        shutil.copy(source / "val" / image["file_name"], folder / "val" / image["file_name"])
