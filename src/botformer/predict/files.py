"""Which images are predicted, and the files that say what was predicted; for classifiers and detectors alike."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from botformer.atomic_write import write_json, write_text
from botformer.data.classification.dataset import EXTENSIONS
from botformer.data.detection.coco_writer import coco_layout
from botformer.data.detection.dataset import ImageId
from botformer.data.detection.keypoints import NO_KEYPOINTS, KeypointLayout
from botformer.errors import InputError

PREDICTIONS, IMAGES = "predictions.json", "images.json"


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
    """The images among `paths`, and those in the folders among them, in order. Drawings that an earlier prediction left
    in `out`, a folder within one of these, are left out.

    Raises:
        InputError: a path that does not exist, a folder without images, or no path at all.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            drawings = out.resolve() if path.resolve() in out.resolve().parents else None
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in EXTENSIONS
                and not file.name.startswith(".")
                and not (drawings and drawings in file.resolve().parents)
            )
            if not found:
                raise InputError(f"{path} holds no images ({', '.join(EXTENSIONS)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path} does not exist; expected an image or a folder of images")
    if not files:
        raise InputError("name at least one image: botformer predict IMAGE...")
    return files


def drawing_files(files: Sequence[Path], out: Path, kind: str) -> list[Path]:
    """OUT/NAME.KIND.png for each file, numbered where several have one name; never one of the images themselves."""
    taken = {file.resolve() for file in files}
    drawings = []
    for file in files:
        names = (f"{file.stem}.{kind}{number}.png" for number in ("", *(f"-{n}" for n in range(2, len(files) + 2))))
        drawing = next(out / name for name in names if (out / name).resolve() not in taken)
        taken.add(drawing.resolve())
        drawings.append(drawing)
    return drawings
