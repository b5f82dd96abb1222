"""Where annotated pictures lie: COCO's layouts and YOLO folders."""

import re
from pathlib import Path

from botformer.data.coco import open_coco
from botformer.data.detection_source import DetectionSource
from botformer.data.yolo import open_yolo
from botformer.errors import InputError

LAYOUTS = """expected one of
  DIR/annotations/instances_train*.json and instances_val*.json (COCO), the pictures in DIR/train* and DIR/val*
  DIR/train/_annotations.coco.json and DIR/valid/_annotations.coco.json, the pictures beside them
  DIR/data.yaml (YOLO), which says where train and val are"""

_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "test")}
"""What a split may be called; the first that exists is taken. Any other goes by its own name."""


def open_detection_sources(data: str) -> tuple[DetectionSource, DetectionSource]:
    """The pictures to train on and those to validate on, with the same categories. `LAYOUTS` says what `data` may be.

    Raises InputError where the layout is none of these, a split is missing, or the two disagree on the categories.
    """
    train, validation = open_detection_source(data, "train"), open_detection_source(data, "validation")
    if train.categories != validation.categories:
        only_train = [f"{c.name} ({c.id})" for c in train.categories if c not in validation.categories]
        only_validation = [f"{c.name} ({c.id})" for c in validation.categories if c not in train.categories]
        raise InputError(
            f"{train.where} and {validation.where} must have the same categories, names and ids; only in the first: "
            f"{', '.join(only_train) or 'none'}; only in the second: {', '.join(only_validation) or 'none'}"
        )
    return train, validation


def open_detection_source(data: str, split: str) -> DetectionSource:
    """One split: "train", "validation", or any other by its name, such as "test" or "val2017". As above."""
    root = Path(data).expanduser()
    if not root.is_dir():
        raise InputError(f"data folder {root} does not exist; {LAYOUTS}")
    yolo = next((root / name for name in ("data.yaml", "data.yml") if (root / name).is_file()), None)
    if yolo is not None:
        return open_yolo(yolo, split)
    for name in _NAMES.get(split, (split,)):
        beside = root / name / "_annotations.coco.json"
        if beside.is_file():
            return open_coco(beside, beside.parent)
        files = _annotation_files(root / "annotations", name)
        if len(files) > 1:
            raise InputError(
                f"{root / 'annotations'} has {' and '.join(file.name for file in files)}: which of them is {split!r}? "
                "Leave only one there"
            )
        if files:
            return open_coco(files[0], _pictures_of(files[0], root))
    found = ", ".join(sorted(entry.name for entry in root.iterdir())[:10]) or "nothing"
    raise InputError(f"{root} has no annotations of the split {split!r} (found there: {found}); {LAYOUTS}")


def _annotation_files(folder: Path, name: str) -> list[Path]:
    """NAME.json or instances_NAME.json, a year behind the name or none."""
    pattern = re.compile(rf"(instances_)?{re.escape(name)}\d*\.json")
    return sorted(file for file in folder.glob("*.json") if pattern.fullmatch(file.name))


def _pictures_of(annotations: Path, root: Path) -> Path:
    split = annotations.stem.removeprefix("instances_")
    candidates = [root / split, root / "images" / split, root / "images"]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise InputError(
        f"the pictures of {annotations} are not there: none of {', '.join(map(str, candidates))} is a folder"
    )
