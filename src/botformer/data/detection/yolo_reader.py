"""YOLO folders, boxes and polygons -> the records of a COCO file, so that the same checks serve both.

`supervision` lists the images, knows the class names and judges every line. The masks it would draw, each as large as
its image and all of them at once, are not asked for: polygons stay polygons.
"""

import warnings
from pathlib import Path
from typing import Any

from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.dataset import DetectionDataset, Problem
from botformer.data.image_io import BadImage, upright_size
from botformer.errors import InputError

_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation", "test")}
"""What data.yaml may call a split."""


def open_yolo(data_yaml: Path, split: str, max_bad_records: int = 20) -> DetectionDataset:
    """A split of a YOLO data set: "train", "validation", or any other key of its data.yaml.

    Images lie in `.../images`, a text file for each in `.../labels`: a line is `class x y width height` or
    `class x y x y x y ...`, as fractions of the image. Class c of data.yaml gets category id c; annotation ids are line
    numbers. An image without a file has no objects. What is left out is reported as in `coco_reader.open_coco`.

    Raises:
        InputError: `supervision` is not installed, data.yaml or a folder is missing or broken, too many bad lines.
    """
    yolo = _supervision()
    images = _images_folder(data_yaml, split)
    labels = _labels_folder(images)
    if not labels.is_dir():
        raise InputError(
            f"{data_yaml}: the images of {split!r} lie in {images}, their label files must lie in {labels}, which "
            "does not exist; rename or move the folder with the .txt files"
        )
    try:
        # Where there are no labels, this reads the names and lists the images, and no more.
        names, paths, _ = yolo.load_yolo_annotations(str(images), str(images / "no labels here"), str(data_yaml))
    except ValueError as error:
        raise InputError(f"{data_yaml}: {error}") from error
    records: dict[str, Any] = {
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "images": [],
        "annotations": [],
    }
    bad: list[Problem] = []
    for image_id, path in enumerate(sorted(map(Path, paths)), 1):
        try:
            width, height = upright_size(path)
        except BadImage as error:
            bad.append(Problem(image_id, path.name, None, error.reason))
            continue
        records["images"].append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        for number, line in _lines(labels / f"{path.stem}.txt"):
            try:
                found = _annotation(yolo, line, width, height)
            except ValueError as error:
                bad.append(Problem(image_id, path.name, number, str(error)))
            else:
                records["annotations"].append({"id": number, "image_id": image_id} | found)
    return coco_dataset(records, f"{data_yaml} ({split})", images, max_bad_records, bad)


def _supervision() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OpenCV")  # that it is not there; nothing asked for here would use it
        try:
            from supervision.dataset.formats import yolo
        except ImportError:
            raise InputError(
                "reading YOLO folders needs the package supervision: pip install 'botformer[detection]'"
            ) from None
    return yolo


def _annotation(yolo: Any, line: str, width: int, height: int) -> dict[str, Any]:
    """Raises ValueError where the line is none."""
    found = yolo.yolo_annotations_to_detections([line], (width, height), with_masks=False)
    x1, y1, x2, y2 = map(float, found.xyxy[0])
    record: dict[str, Any] = {"category_id": int(found.class_id[0]), "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
    numbers = [float(value) for value in line.split()[1:]]
    if len(numbers) >= 6:
        corners = numbers[: len(numbers) // 2 * 2]  # a last odd one is a confidence
        record["segmentation"] = [[value * (height if place % 2 else width) for place, value in enumerate(corners)]]
    return record


def _lines(file: Path) -> list[tuple[int, str]]:
    """(number, line) of those that are not empty. Raises InputError where the file is no text."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"label file {file} cannot be read: {error}") from error
    return [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _images_folder(data_yaml: Path, split: str) -> Path:
    import yaml

    try:
        said = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{data_yaml} cannot be read: {error}") from error
    if not isinstance(said, dict):
        raise InputError(f"{data_yaml} must say 'names', 'train' and 'val', found a {type(said).__name__}")
    key = next((key for key in _KEYS.get(split, (split,)) if said.get(key)), None)
    if key is None:
        raise InputError(f"{data_yaml} names no folder for the split {split!r}; it has {', '.join(map(str, said))}")
    folder = said[key]
    if not isinstance(folder, str) or folder.endswith(".txt"):
        raise InputError(f"{data_yaml}: {key!r} must be one folder of images, got {folder!r}")
    root = data_yaml.parent / str(said.get("path") or "")
    # Some exporters write ../train/images and put train beside data.yaml all the same.
    tried = [base / part for base in (root, data_yaml.parent) for part in (folder, folder.removeprefix("../"))]
    for candidate in tried:
        if candidate.is_dir():
            return candidate
    raise InputError(f"{data_yaml}: {key!r} is {folder!r}, but {tried[0]} is no folder")


def _labels_folder(images: Path) -> Path:
    """`images` in the path becomes `labels`, the last one that there is."""
    parts = list(images.resolve().parts)
    if "images" not in parts:
        return images
    last = len(parts) - 1 - parts[::-1].index("images")
    parts[last] = "labels"
    return Path(*parts)
