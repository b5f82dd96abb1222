"""Where annotated images lie: COCO, YOLO, Pascal VOC, LabelMe, VIA and Label Studio, as programs export them."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from botformer.data.detection.coco_reader import open_coco
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.exported_text import SPLITS, find_exported, read_text
from botformer.data.detection.hold_out import hold_out_a_tenth
from botformer.data.detection.image_paths import OF_SYSTEMS, find_files
from botformer.data.detection.label_studio_export import is_label_studio
from botformer.data.detection.label_studio_reader import open_label_studio
from botformer.data.detection.labelme_reader import is_labelme, open_labelme
from botformer.data.detection.match_categories import match_categories
from botformer.data.detection.via_reader import open_via, via_images
from botformer.data.detection.voc_reader import find_voc, find_voc_split, open_voc, refuse_cvat
from botformer.data.detection.yolo_reader import YoloDescription, class_names, open_yolo, read_yolo_description
from botformer.data.image_files import folder_of, is_hidden, is_image
from botformer.errors import InputError
from botformer.read_file import at_home, open_file
from botformer.text import and_more

log = logging.getLogger("botformer.data")

LAYOUTS = """expected one of
  DIR/annotations/instances_train*.json and instances_val*.json (COCO), the images in DIR/train* and DIR/val*
  DIR/annotations/person_keypoints_train*.json and person_keypoints_val*.json, for key point detectors
  DIR/train/_annotations.coco.json and DIR/valid/_annotations.coco.json, the images beside them
  DIR/data.yaml (YOLO), which says where train and val are; or classes.txt beside images/train and labels/train
  DIR/Annotations/*.xml, DIR/JPEGImages and DIR/ImageSets/Main/train.txt and val.txt (Pascal VOC)
  DIR/train and DIR/val with one of: a COCO file, LabelMe's *.json, VOC's *.xml, a JSON file of VIA or of Label Studio
  any of these without train and val, such as one annotation file and its images: a tenth of the images is held out"""

_NAMES = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "valid", "val", "dev", "test", "testing"),
}
"""What a split may be called, in any case; the first that exists is taken. Any other goes by its own name."""

_KEYPOINTS = "person_keypoints_"

_ONE_OF_ITS_KIND = ("_annotations.coco.json", "labels.json", "result.json", "via_region_data.json")
"""Annotation files that are taken before any other JSON file of a folder: Roboflow, FiftyOne, Label Studio, VIA."""

_IMAGES = ("images", "Images", "data", "JPEGImages", "img")
"""Folders of images beside an annotation file."""

_NAMED_BY_COCO = re.compile(rf"instances_|{_KEYPOINTS}|_annotations\.coco\.json", re.IGNORECASE)
"""Files that need not be read to know what they are."""

_LOOKED_FOR = 20
"""Images of a split; if none of them is there, their folder is the wrong one. Also JSON files of a folder: if the first
are nothing that is known, neither are the others."""

_OTHER_KINDS = ("panoptic", "captions", "stuff", "image")
"""First words of COCO's files without objects: panoptic_val2017.json, image_info_test2017.json."""

_DESCRIPTIONS = (".yaml", ".yml", ".data")
"""Endings of what describes a YOLO data set."""

_OF_ANNOTATIONS = (".json", *_DESCRIPTIONS)
"""Endings of files that `--data` may be."""

_CLASSES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")
"""Lists of the classes of a YOLO data set that nothing else describes."""

_Open = Callable[[int], DetectionDataset]
"""Takes the number of bad records that are tolerated."""


def open_detection_datasets(
    data: str, keypoints: bool = False, max_bad_records: int = 20
) -> tuple[DetectionDataset, DetectionDataset]:
    """The images to train on and those to validate on, with the categories of the former. `LAYOUTS` says what `data`
    may be, `coco_reader.open_coco` what a bad record is.

    Where nothing is there to validate on, a tenth of the images is held out (`hold_out_a_tenth`). Categories of the
    validation data are found among those of the training data (`match_categories`).

    With `keypoints`, key points are read too, from person_keypoints_*.json where there is such a file; other detectors
    prefer instances_*.json.

    Raises InputError where the layout is none of these, a split is missing, or the two disagree on the categories or
    the key points.
    """
    root = _existing(data)
    open_train, open_validation = (_find(root, split, keypoints) for split in ("train", "validation"))
    if open_validation is None:
        train, validation = hold_out_a_tenth(
            _checked((open_train or _whole_of(root, "train", keypoints))(max_bad_records))
        )
    elif open_train is None:
        raise _nothing_found(root, "train")
    else:
        train, validation = _checked(open_train(max_bad_records)), _checked(open_validation(max_bad_records))
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
    """One split: "train", "validation", or any other by its name, such as "test" or "val2017". As above.

    What is held out of a data set with a train split alone is its "validation"; "train" is then still all of the
    split. The split "" is everything that is there, where there are no splits.
    """
    root = _existing(data)
    found = _find(root, split, keypoints) if split else _whole_of(root, split, keypoints)
    if found is not None:
        return _checked(found(max_bad_records))
    if split not in _NAMES or _find(root, "validation", keypoints) is not None:
        raise _nothing_found(root, split)
    return open_detection_datasets(data, keypoints, max_bad_records)[split == "validation"]


def is_annotated(data: str) -> bool:
    """Whether `data` is a folder with annotations of objects, rather than images in class folders."""
    root = _unwrapped(at_home(data))
    if not root.exists() or _is_another_file(root):
        return False
    try:
        return any(_find(root, split, False) for split in _NAMES) or _whole(root, False) is not None
    except InputError:  # annotated, and something is wrong with it
        return True


def has_annotated_test_split(data: str) -> bool:
    """Whether there is a test split besides one to train and one to validate on."""
    root = _existing(data)
    try:
        return all(_find(root, split, False) is not None for split in ("train", "test")) and any(
            _find(root, name, False) is not None for name in _NAMES["validation"] if not name.startswith("test")
        )
    except InputError:  # something is there that nobody can read: it is not needed to train
        return False


def format_of(data: str) -> str:
    """What wrote the annotations: COCO, YOLO, Pascal VOC, LabelMe, VIA or Label Studio. Raises InputError where there
    are none."""
    root = _existing(data)
    found = _find(root, "train", False) or _whole(root, False)
    if found is None:
        raise _nothing_found(root, "train")
    opens = found.func if isinstance(found, partial) else found
    return _FORMATS[opens]


def has_shapes(dataset: DetectionDataset) -> bool:
    """Whether any object has a shape, not only a box."""
    images = map(dataset.image, range(len(dataset)))
    return any(found.segmentation is not None and not found.crowd for each in images for found in each.annotations)


def has_keypoints(dataset: DetectionDataset) -> bool:
    """Whether any object has a labelled key point."""
    images = map(dataset.image, range(len(dataset)))
    return any(found.num_keypoints and not found.crowd for each in images for found in each.annotations)


def _existing(data: str) -> Path:
    root = at_home(data)
    if not root.exists():
        raise InputError(f"data folder {root} does not exist; {LAYOUTS}")
    if _is_another_file(root):
        raise InputError(f"{root} is a file, not the folder of a data set; {LAYOUTS}")
    return _unwrapped(root)


def _is_another_file(root: Path) -> bool:
    return root.is_file() and root.suffix.lower() not in _OF_ANNOTATIONS


def _unwrapped(root: Path) -> Path:
    """The folder in it, where nothing else tells of images, as unpacked archives leave it, with a README or the archive
    beside it; unless that is a split."""
    inside = [each for each in root.iterdir() if _tells(each)] if root.is_dir() else []
    if (
        len(inside) != 1
        or inside[0].is_symlink()
        or not inside[0].is_dir()
        or inside[0].name.lower().rstrip("0123456789") in SPLITS
    ):
        return root
    return _unwrapped(inside[0])


def _tells(entry: Path) -> bool:
    """A folder, an image, or a file that may be of annotations."""
    if is_hidden(entry.name) or entry.name in OF_SYSTEMS:
        return False
    by_name = entry.suffix.lower() in (*_OF_ANNOTATIONS, ".xml") or entry.name in _CLASSES
    return by_name or is_image(entry.name) or entry.is_dir()


def _checked(dataset: DetectionDataset) -> DetectionDataset:
    if not len(dataset):
        raise InputError(
            f"{dataset.where} has no images ({len(dataset.problems)} records left out); expected at least one"
            f"{dataset.first_problems}"
        )
    _demand_images(dataset)
    return dataset


# Splits


def _find(root: Path, split: str, keypoints: bool) -> _Open | None:
    """How to open the split of that name; None where nothing tells it from others."""
    yolo = _yolo(root)
    if yolo is not None:
        return partial(open_yolo, yolo, split, keypoints) if yolo.key(split) else None
    if root.is_file():
        return _whole(root, keypoints) if split == "validation" and _of_a_split(root) else None
    voc = find_voc(root)
    for name in _NAMES.get(split, (split,)):
        found = _coco_split(root, name, split, keypoints)
        listed = voc.lists / f"{name}.txt" if voc else None
        if found is None and voc and listed and listed.is_file():
            found = partial(open_voc, voc, listed)
        folder = folder_of(root, name)
        if found is None and folder is not None:
            found = _whole(folder, keypoints)
        if found is None and (in_folders := find_voc_split(root, name, voc)):
            found = partial(open_voc, in_folders, None)
        if found is None:
            found = _undescribed_yolo(root, _yolo_places(root, name), split, keypoints)
        if found is not None:
            if split == "validation" and name.startswith("test"):
                log.warning("%s has nothing to validate on but %r, which is taken", root, name)
            return found
    return None


def _coco_split(root: Path, name: str, split: str, keypoints: bool) -> _Open | None:
    for folder in (root / "annotations", root / "Annotations", root / "labels", root):
        files = _annotation_files(folder, name, keypoints)
        if len(files) > 1:
            raise InputError(
                f"{folder} has {' and '.join(file.name for file in files)}: which of them is {split!r}? "
                "Leave only one there"
            )
        if files:
            return _open_file(files[0], root, keypoints)
    return None


def _annotation_files(folder: Path, name: str, keypoints: bool) -> list[Path]:
    """NAME.json, instances_NAME.json or person_keypoints_NAME.json, a year behind the name or none; of both sorts the
    one that suits the detector. Otherwise COCO files with the name as one of several words, such as cats_NAME.json."""
    pattern = re.compile(rf"(instances_|{_KEYPOINTS})?{re.escape(name)}\d*\.json", re.IGNORECASE)
    there = sorted(folder.glob("*.json"))
    files = [file for file in there if (match := pattern.fullmatch(file.name)) and (match[1] or not _is_other(file))]
    if not files:
        worded = [file for file in there if name.lower() in _words(file) and _words(file)[0] not in _OTHER_KINDS]
        files = [file for file in worded if _NAMED_BY_COCO.match(file.name) or _is_of_objects(_content(file))]
    suitable = [file for file in files if file.name.lower().startswith(_KEYPOINTS) == keypoints]
    return suitable or files


# Everything in one folder


def _whole_of(root: Path, split: str, keypoints: bool) -> _Open:
    found = _whole(root, keypoints)
    if found is None:
        raise _nothing_found(root, split)
    return found


def _whole(folder: Path, keypoints: bool) -> _Open | None:
    """How to open all that is annotated there; None where nothing is."""
    if folder.is_file():
        beside = folder.parent.parent if folder.parent.name.lower() == "annotations" else folder.parent
        return None if folder.suffix.lower() in _DESCRIPTIONS else _of_json([folder], beside, keypoints, only=True)[1]
    for place in (folder, *(folder / name for name in ("annotations", "Annotations", "labels", "json"))):
        files = sorted(place.glob("*.json")) if place.is_dir() else []
        named = [file for name in _ONE_OF_ITS_KIND for file in files if file.name.lower() == name]
        file, found = _of_json(named[:1] or _of_one_kind(files, keypoints), folder, keypoints)
        if found is not None and not (file and _of_a_split(file)):
            return found
    voc = find_voc(folder)
    if voc is not None:
        return partial(open_voc, voc, None)
    children = sorted(entry for entry in folder.iterdir() if entry.is_dir())[:_LOOKED_FOR]
    if any(is_labelme(_content(file)) for child in children for file in islice(child.glob("*.json"), 1)):
        return partial(open_labelme, folder, folder)
    places = ((folder / "images", folder / "labels"), (folder, folder / "labels"), (folder, folder))
    yolo = _undescribed_yolo(folder, places, "train", keypoints)
    if yolo is None:
        refuse_cvat(folder)
    return yolo


def _of_one_kind(files: list[Path], keypoints: bool) -> list[Path]:
    """Of instances_default.json and person_keypoints_default.json the one that suits the detector."""
    kinds = {re.sub(rf"^(instances_|{_KEYPOINTS})", "", file.name, flags=re.IGNORECASE) for file in files}
    if len(files) != 2 or len(kinds) != 1:
        return files
    return [file for file in files if file.name.lower().startswith(_KEYPOINTS) == keypoints] or files


def _of_json(files: list[Path], root: Path, keypoints: bool, only: bool = False) -> tuple[Path | None, _Open | None]:
    """The only file of COCO or VIA and how to open it; of LabelMe's many how to open them. None where there are none of
    these. `only`: the file was named itself, so that its reader says why it cannot be read.

    Raises InputError where there are several, and nobody can know which is meant.
    """
    kinds = {}
    for file in files[:_LOOKED_FOR]:
        content = None if _NAMED_BY_COCO.match(file.name) else _content(file)
        if is_labelme(content):
            return None, partial(open_labelme, file.parent, root)
        images = via_images(content)
        if is_label_studio(content):
            kinds[file] = partial(open_label_studio, content, file, root)
        elif images:
            kinds[file] = partial(open_via, images, file, list(dict.fromkeys(_image_folders(file, root))))
        elif _is_coco(content) or (content is None and (only or _claims_to_be_coco(file))):
            kinds[file] = partial(_open_coco, file, root, keypoints)
        if len(kinds) > 1:
            raise InputError(
                f"{file.parent} has {' and '.join(each.name for each in kinds)}: which of them is meant? Leave only "
                "one there, or call them instances_train.json and instances_val.json"
            )
    file = next(iter(kinds), None)
    return file, kinds.get(file)


def _of_a_split(file: Path) -> bool:
    """Whether its name says that it is not the whole, and not what one trains on."""
    return any(word in _NAMES["validation"] for word in _words(file))


def _words(file: Path) -> list[str]:
    """Of its name, in lower case and without years: coco, train of coco_train2017.json."""
    return [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", file.stem.lower())]


def _is_of_objects(content: Any) -> bool:
    """One file for many images."""
    return _is_coco(content) or is_label_studio(content)


def _open_file(file: Path, root: Path, keypoints: bool) -> _Open:
    """A file whose name says which split it is. COCO's are large, and are not read twice."""
    content = _content(file) if _begins_as_list(file) else None
    if is_label_studio(content):
        return partial(open_label_studio, content, file, root)
    return partial(_open_coco, file, root, keypoints)


def _is_other(file: Path) -> bool:
    """A list that is not Label Studio's. COCO's files are large, and are not read for it."""
    return _begins_as_list(file) and not is_label_studio(_content(file))


def _begins_as_list(file: Path) -> bool:
    with _opened(file) as opened:
        return opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _claims_to_be_coco(file: Path) -> bool:
    """Of a file that cannot be read as JSON: its reader will say why, where it is not a file of something else."""
    named = file.name.lower() in _ONE_OF_ITS_KIND or _NAMED_BY_COCO.match(file.name)
    if named or {"annotation", "annotations", "coco", *SPLITS} & set(_words(file)):
        return True
    with _opened(file) as opened:
        text = opened.read()
    return any(key in text for key in (b'"annotations"', b'"categories"', b'"file_name"'))


def _content(file: Path) -> Any:
    """Of a JSON file; the first line of one with a JSON value per line. None where it cannot be read, which its reader
    will say better."""
    text = read_text(file)
    for part in (text, text.lstrip().partition("\n")[0]):
        with suppress(ValueError, RecursionError):
            return json.loads(part)
    return None


def _opened(file: Path) -> BinaryIO:
    try:
        return open_file(file)
    except OSError as error:
        raise InputError(f"annotation file {file} cannot be read: {error.strerror or error}") from error


# COCO


def _open_coco(annotations: Path, root: Path, keypoints: bool, max_bad_records: int) -> DetectionDataset:
    return open_coco(annotations, _images_of(annotations, root), max_bad_records, keypoints)


def _images_of(annotations: Path, root: Path) -> Path:
    """Of the folders that there are, the one with most of the images that the file names, as it names them."""
    candidates = list(dict.fromkeys(_image_folders(annotations, root)))
    folders = [folder for folder in candidates if folder.is_dir()]
    names = _file_names(annotations)

    def there(folder: Path) -> tuple[int, int]:
        """As it stands there, and without folders that are not there."""
        literally = sum(os.path.isfile(folder / name.replace("\\", "/")) for name in names)
        return literally, sum(find_exported(name, [folder]) is not None for name in names)

    best = max(folders, key=there)  # the first of equals
    if any(there(best)):
        return best
    if not set(_words(annotations)) & set(SPLITS) and _is_below(root, names):
        return root
    of_images = [folder for folder in candidates if folder not in (annotations.parent, root)]
    folder = next((folder for folder in of_images if folder.is_dir()), None)
    if folder is None:
        raise InputError(
            f"the images of {annotations} are not there: none of {', '.join(map(str, of_images))} is a folder; give "
            f"the folder with the images one of these names (found in {root}: {_found(root)}); {LAYOUTS}"
        )
    return folder


def _is_below(root: Path, names: list[str]) -> bool:
    """Whether any of these files is in a folder of any name; not for splits, of which one may have another's names."""
    try:
        return bool(find_files(names, root, str(root)))
    except InputError:  # several may be meant
        return False


def _image_folders(annotations: Path, root: Path) -> Iterator[Path]:
    """Where the images of a file may lie, the likeliest first."""
    split = re.sub(rf"^(instances_|{_KEYPOINTS})", "", annotations.stem, flags=re.IGNORECASE)
    for parent in (root, root / "images"):
        yield folder_of(parent, split) or parent / split
        yield from filter(None, (folder_of(parent, word) for word in _words(annotations) if word in SPLITS))
    yield from (root / name for name in _IMAGES)
    yield from (annotations.parent, root)


def _file_names(annotations: Path) -> list[str]:
    """The first that the file names; found without reading all of it as JSON, which takes a while for COCO's own."""
    with _opened(annotations) as opened:
        content = opened.read()
    names = []
    for match in islice(re.finditer(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', content), _LOOKED_FOR):
        with suppress(ValueError):  # a damaged one: who reads the whole file will say it
            names.append(json.loads(match[1].decode("utf-8", errors="replace"), strict=False))
    return names


def _demand_images(dataset: DetectionDataset) -> None:
    """A few images may be missing. All of them: somebody should hear that before anything is built."""
    some = [dataset.name(index) for index in range(0, len(dataset), -(-len(dataset) // _LOOKED_FOR))]
    if not any(os.path.isfile(dataset.folder / name) for name in some):
        raise InputError(
            f"none of {len(some)} images that {dataset.where} names is in {dataset.folder}, such as {some[0]} (found "
            f"there: {_found(dataset.folder)}); 'file_name' in the annotations must be the path below that folder"
        )


# YOLO


def _yolo(root: Path) -> YoloDescription | None:
    """data.yaml, or the only file with another name that says the same."""
    if root.is_file():
        return read_yolo_description(root) if root.suffix.lower() in _DESCRIPTIONS else None
    named = next((root / name for name in ("data.yaml", "data.yml", "obj.data") if (root / name).is_file()), None)
    if named is not None:
        return read_yolo_description(named)
    found = []
    for file in sorted((*root.glob("*.yaml"), *root.glob("*.yml"))):
        try:
            description = read_yolo_description(file)
        except InputError:  # of something else
            continue
        if "names" in description.said and (description.key("train") or description.key("validation")):
            found.append(description)
    if len(found) > 1:
        names = " and ".join(each.file.name for each in found)
        raise InputError(f"{root} has {names}: which of them is meant? Give the file itself, such as {found[0].file}")
    return found[0] if found else None


def _yolo_places(root: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """Where the images and the label files of a split may lie."""
    images, folder = folder_of(root / "images", name), folder_of(root, name)
    if images is not None:
        yield images, root / "labels" / images.name
    if folder is not None:
        yield folder / "images", folder / "labels"
        yield folder, folder


def _undescribed_yolo(root: Path, places: Iterable[tuple[Path, Path]], split: str, keypoints: bool) -> _Open | None:
    """YOLO's images and label files with a list of the classes and no data.yaml: as labelImg and Label Studio leave
    them."""
    for images, labels in places:
        folders = (root, images, labels, root / "labels", *sorted((root / "labels").glob("*/")))
        listed = next((file for folder in folders for name in _CLASSES if (file := folder / name).is_file()), None)
        if listed is not None and images.is_dir() and _has_labels(images, labels):
            key = "val" if split == "validation" else split
            description = YoloDescription(listed, {"names": class_names(listed), key: str(images.absolute())})
            return partial(open_yolo, description, split, keypoints)
    return None


def _has_labels(images: Path, labels: Path) -> bool:
    """Text files in a folder of their own, or beside the images and called as these."""
    if images != labels:
        files = [file.name for file in labels.rglob("*")] if labels.is_dir() else []
        texts = any(name.lower().endswith(".txt") and name not in _CLASSES for name in files)
        return labels.is_dir() and (texts or not any(map(is_image, files)))  # images there are masks
    stems = {file.stem for file in labels.iterdir() if file.suffix.lower() == ".txt"}
    return any(is_image(file.name) and file.stem in stems for file in images.iterdir())


_FORMATS: dict[Callable[..., DetectionDataset], str] = {
    _open_coco: "COCO", open_yolo: "YOLO", open_voc: "Pascal VOC", open_labelme: "LabelMe", open_via: "VIA",
    open_label_studio: "Label Studio",
}  # fmt: skip


# What is said where nothing is found


def _nothing_found(root: Path, split: str) -> InputError:
    patterns = ("annotations/*.json", "*/_annotations.coco.json", "*.json", "*.yaml", "*.yml")
    annotated = sorted(file.relative_to(root).as_posix() for pattern in patterns for file in root.glob(pattern))
    hint = (
        f"The annotations there: {and_more(annotated, 10)}; rename a file, or move some of its images to one for this "
        "split"
        if annotated
        else "Class folders, DIR/train/CLASS/*.jpg, are for classifiers"
    )
    of_split = f" of the split {split!r}" if split else " of objects"
    return InputError(f"{root} has no annotations{of_split} (found there: {_found(root)}); {LAYOUTS}\n{hint}")


def _found(folder: Path) -> str:
    if folder.is_file():
        return folder.name
    return and_more(sorted(entry.name for entry in folder.iterdir()), 10) or "nothing"
