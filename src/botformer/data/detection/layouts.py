"""Where annotated images lie: COCO's layouts and YOLO folders."""

import re
from dataclasses import replace
from pathlib import Path

from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.match_categories import match_categories
from botformer.data.detection.yolo_reader import open_yolo
from botformer.errors import InputError
from botformer.text import and_more

LAYOUTS = """expected one of
  DIR/annotations/instances_train*.json and instances_val*.json (COCO), the images in DIR/train* and DIR/val*
  DIR/annotations/person_keypoints_train*.json and person_keypoints_val*.json, for key point detectors
  DIR/train/_annotations.coco.json and DIR/valid/_annotations.coco.json, the images beside them
  DIR/data.yaml (YOLO), which says where train and val are"""

_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "test")}
"""What a split may be called; the first that exists is taken. Any other goes by its own name."""

_KEYPOINTS = "person_keypoints_"

_LOOKED_FOR = 20
"""Images of a split; if none of them is there, their folder is the wrong one."""


def open_detection_datasets(
    data: str, keypoints: bool = False, max_bad_records: int = 20
) -> tuple[DetectionDataset, DetectionDataset]:
    """The images to train on and those to validate on, with the categories of the former. `LAYOUTS` says what `data`
    may be, `coco_reader.open_coco` what a bad record is.

    With `keypoints`, key points are read too, from person_keypoints_*.json where there is such a file; other detectors
    prefer instances_*.json.

    Raises InputError where the layout is none of these, a split is missing, or the two disagree on the categories or
    the key points.
    """
    train = open_detection_dataset(data, "train", keypoints, max_bad_records)
    validation = open_detection_dataset(data, "validation", keypoints, max_bad_records)
    validation = replace(match_categories(validation, train.categories, train.where), categories=train.categories)
    if train.keypoint_names != validation.keypoint_names:
        raise InputError(
            f"{train.where} and {validation.where} must have the same key points in the same order; the first has "
            f"{', '.join(train.keypoint_names) or 'none'}; the second {', '.join(validation.keypoint_names) or 'none'}"
        )
    return train, validation


def open_detection_dataset(
    data: str, split: str, keypoints: bool = False, max_bad_records: int = 20
) -> DetectionDataset:
    """One split: "train", "validation", or any other by its name, such as "test" or "val2017". As above."""
    root = Path(data).expanduser()
    if root.is_file():
        raise InputError(f"{root} is a file, not the folder of a data set; {LAYOUTS}")
    if not root.is_dir():
        raise InputError(f"data folder {root} does not exist; {LAYOUTS}")
    dataset = _open(root, split, keypoints, max_bad_records)
    if not len(dataset):
        raise InputError(
            f"{dataset.where} has no images ({len(dataset.problems)} records left out); expected at least one"
        )
    _demand_images(dataset)
    return dataset


def is_annotated(data: str) -> bool:
    """Whether `data` is a folder with annotations of objects, rather than images in class folders."""
    root = Path(data).expanduser()
    return root.is_dir() and bool(_annotations_in(root))


def has_shapes(dataset: DetectionDataset) -> bool:
    """Whether any object has a shape, not only a box."""
    images = map(dataset.image, range(len(dataset)))
    return any(found.segmentation is not None and not found.crowd for each in images for found in each.annotations)


def has_keypoints(dataset: DetectionDataset) -> bool:
    """Whether any object has a labelled key point."""
    images = map(dataset.image, range(len(dataset)))
    return any(found.num_keypoints and not found.crowd for each in images for found in each.annotations)


def _open(root: Path, split: str, keypoints: bool, max_bad_records: int) -> DetectionDataset:
    yolo = next((root / name for name in ("data.yaml", "data.yml") if (root / name).is_file()), None)
    if yolo is not None:
        return open_yolo(yolo, split, max_bad_records)
    for name in _NAMES.get(split, (split,)):
        beside = root / name / "_annotations.coco.json"
        if beside.is_file():
            return open_coco(beside, beside.parent, max_bad_records, keypoints)
        files = _annotation_files(root / "annotations", name, keypoints)
        if len(files) > 1:
            raise InputError(
                f"{root / 'annotations'} has {' and '.join(file.name for file in files)}: which of them is {split!r}? "
                "Leave only one there"
            )
        if files:
            return open_coco(files[0], _images_of(files[0], root), max_bad_records, keypoints)
    annotated = _annotations_in(root)
    hint = (
        f"The annotations there: {and_more(annotated, 10)}; rename a file, or move some of its images to one for this "
        "split"
        if annotated
        else "Class folders, DIR/train/CLASS/*.jpg, are for classifiers"
    )
    raise InputError(
        f"{root} has no annotations of the split {split!r} (found there: {_found(root)}); {LAYOUTS}\n{hint}"
    )


def _annotations_in(root: Path) -> list[str]:
    patterns = ("annotations/*.json", "*/_annotations.coco.json", "data.yaml", "data.yml")
    return sorted(file.relative_to(root).as_posix() for pattern in patterns for file in root.glob(pattern))


def _annotation_files(folder: Path, name: str, keypoints: bool) -> list[Path]:
    """NAME.json, instances_NAME.json or person_keypoints_NAME.json, a year behind the name or none; of both sorts the
    one that suits the detector."""
    pattern = re.compile(rf"(instances_|{_KEYPOINTS})?{re.escape(name)}\d*\.json")
    files = sorted(file for file in folder.glob("*.json") if pattern.fullmatch(file.name))
    suitable = [file for file in files if file.name.startswith(_KEYPOINTS) == keypoints]
    return suitable or files


def _images_of(annotations: Path, root: Path) -> Path:
    split = annotations.stem.removeprefix("instances_").removeprefix(_KEYPOINTS)
    candidates = [root / split, root / "images" / split, root / "images"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(
        f"the images of {annotations} are not there: none of {', '.join(map(str, candidates))} is a folder; give the "
        f"folder with the images one of these names (found in {root}: {_found(root)})"
    )


def _demand_images(dataset: DetectionDataset) -> None:
    """A few images may be missing. All of them: somebody should hear that before anything is built."""
    some = [dataset.name(index) for index in range(0, len(dataset), -(-len(dataset) // _LOOKED_FOR))]
    if not any((dataset.folder / name).is_file() for name in some):
        raise InputError(
            f"none of {len(some)} images that {dataset.where} names is in {dataset.folder}, such as {some[0]} (found "
            f"there: {_found(dataset.folder)}); 'file_name' in the annotations must be the path below that folder"
        )


def _found(folder: Path) -> str:
    return and_more(sorted(entry.name for entry in folder.iterdir()), 10) or "nothing"
