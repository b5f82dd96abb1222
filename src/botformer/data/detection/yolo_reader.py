"""YOLO data sets, boxes, polygons and key points -> the records of a COCO file, so that the same checks serve both.

`supervision` judges the lines. What it would read besides (images of one flat folder, masks as large as their images)
is not asked for: images are searched in sub-folders, and polygons stay polygons.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.dataset import NO_IMAGE, DetectionDataset, Problem
from botformer.data.detection.exported_text import find_exported, log_left_out, read_lines, read_text
from botformer.data.detection.supervision_formats import supervision_format
from botformer.data.detection.yolo_keypoints import LIMIT, PoseLayout, pose_layout, whole_number
from botformer.data.image_files import ending, find_files, is_image, report_left_out, report_links
from botformer.data.image_io import BadImage, upright_size
from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation", "dev", "test")}
"""What data.yaml may call a split."""

_NOTHING = ("", "~", "null", "Null", "NULL")

_NO_LABELS = {"classes.txt", "notes.txt", "labels.txt", "predefined_classes.txt"}
"""Text files that tools leave among the labels."""

_BESIDE = ("", ".txt", ".cache", ".yaml", ".yml", ".json", ".xml", ".csv", ".md", ".npy")
"""Endings of files beside images that are none, and that nobody misses."""

_TRACKED = (6, 7)
"""Numbers of a line with a track's: of a box, and of a box with its confidence."""

_FURTHEST = 0.5
"""How far over the border a coordinate may lie, as a fraction of the image; further off it is no fraction at all."""


class YoloDescription(NamedTuple):
    """What data.yaml says, or darknet's obj.data. Every value is what is written: the class `yes` stays text."""

    file: Path
    said: Mapping[str, Any]

    def key(self, split: str) -> str | None:
        """The key of "train", of "validation", or of a split by its own name; None where there is none."""
        return next((key for key in _KEYS.get(split, (split,)) if self.places(key)), None)

    def places(self, key: str) -> list[Any]:
        """The folders of images, or the lists of them, of a split."""
        value = self.said.get(key)
        return [each for each in (value if isinstance(value, list) else [value]) if each not in (None, *_NOTHING)]


def read_yolo_description(file: Path) -> YoloDescription:
    """Of a data.yaml, or an obj.data of darknet. Raises InputError where it cannot be read."""
    return YoloDescription(file, _darknet(file) if file.suffix.lower() == ".data" else _yaml(file))


def open_yolo(
    data_yaml: Path | YoloDescription, split: str, keypoints: bool = False, max_bad_records: int = 20
) -> DetectionDataset:
    """A split of a YOLO data set: "train", "validation", or any other key of its data.yaml.

    A split is a folder, a text file that lists images, or several of these. Images are searched in sub-folders. For an
    image `.../images/X.jpg` a text file lies at `.../labels/X.txt` or beside it; links are not resolved. A line is
    `class x y width height`, `class x y x y x y ...`, or with `kpt_shape` the box and then the key points, as fractions
    of the image; one number more is a confidence, or a track's. Class c gets category id c; annotation ids are line
    numbers. An image without a file has no objects. What is left out is reported as in `coco_reader.open_coco`.

    Raises:
        InputError: `supervision` is not installed, data.yaml or a folder is missing or broken, too many bad lines.
    """
    yolo = supervision_format("yolo", "YOLO folders")
    description = data_yaml if isinstance(data_yaml, YoloDescription) else read_yolo_description(data_yaml)
    file, said = description
    where = f"{file} ({split})"
    key = description.key(split)
    if key is None:
        raise InputError(f"{file} names no folder for the split {split!r}; it has {', '.join(said)}")
    if split == "validation" and key == "test":
        log.warning("%s names nothing to validate on but 'test', which is taken", file)
    bases = _bases(said, file)
    names, pose = _names(said, file, bases), pose_layout(said, str(file))
    images, folders = _images(description, key, bases)
    if split != "train":
        _demand_places_of_their_own(description, key, bases)
    if len({image.is_absolute() for image in images}) > 1:
        images = [image.absolute() for image in images]
    labels = {image: _label_file(image) for image in images}
    missing = _report_labels(where, labels, folders)
    folder = folders[0] if len(folders) == 1 else Path(os.path.commonpath([image.parent for image in images]))
    records: dict[str, Any] = {
        "categories": _categories(names, pose if keypoints else None),
        "images": [],
        "annotations": [],
    }
    bad: list[Problem] = []
    lines_of = {path: _lines(label) if label else [] for path, label in labels.items()}
    tracked = _lengths_with_tracks(([line for _, line in lines] for lines in lines_of.values()), where)
    for image_id, path in enumerate(sorted(images), 1):
        name = path.relative_to(folder).as_posix()
        lines = lines_of[path]
        try:
            width, height = upright_size(path)
        except BadImage as error:
            bad.append(Problem(image_id, name, None, error.reason, len(lines)))
            continue
        records["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
        for number, line in lines:
            try:
                found = _annotation(yolo, line, width, height, pose, tracked)
            except ValueError as error:
                bad.append(Problem(image_id, name, number, str(error)))
            else:
                records["annotations"].append({"id": number, "image_id": image_id} | found)
    return coco_dataset(records, where, folder, max_bad_records, bad, missing, keypoints)


# What the description says


def _yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        # Every scalar as it is written: YAML would make a truth value of the class `no`, a number of 1.10.
        said = yaml.load(read_text(file), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
    if not isinstance(said, dict):
        raise InputError(f"{file} must say 'names', 'train' and 'val', found a {type(said).__name__}")
    return said


def _darknet(file: Path) -> dict[str, Any]:
    pairs = (line.split("=", 1) for line in read_lines(file) if "=" in line)
    said = {key.strip(): value.strip() for key, value in pairs}
    return {"val" if key == "valid" else key: value for key, value in said.items() if key != "backup"}


def _bases(said: Mapping[str, Any], file: Path) -> list[Path]:
    """Where its paths begin, the likeliest first."""
    root = said.get("path", "")
    if not isinstance(root, str) or root in _NOTHING:
        return [file.parent]
    given = find_exported(root, [file.parent])
    if given is None or not given.is_dir():
        log.warning("%s: the path %r is not there; what it names is looked for beside the file", file, root)
        return [file.parent]
    return list(dict.fromkeys((given, file.parent)))


def _names(said: Mapping[str, Any], file: Path, bases: Sequence[Path]) -> dict[int, str]:
    names = said.get("names")
    count = whole_number(said.get("nc", said.get("classes")))
    if isinstance(names, str) and (listed := find_exported(names, bases)) is not None and listed.is_file():
        names = class_names(listed)
    if names is None and count:
        log.warning("%s has no 'names'; the %d classes are called by their numbers", file, count)
        names = [str(number) for number in range(count)]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise InputError(f"{file}: 'names' must list the classes, or say `id: name` for each; got {names!r}")
    found: dict[int, str] = {}
    for key, name in names.items():
        number = whole_number(str(key))
        if number is None or not isinstance(name, str):
            raise InputError(f"{file}: 'names' has {key}: {name}; expected are the class's id, from 0, and its name")
        if number in found:
            raise InputError(f"{file}: 'names' has the id {number} twice")
        found[number] = name
    if count is not None and count != len(found):
        log.warning("%s: nc is %d, but there are %d names, which are taken", file, count, len(found))
    return found


def class_names(file: Path) -> list[str]:
    """One per line."""
    lines = [line.strip() for line in read_lines(file)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _categories(names: Mapping[int, str], pose: PoseLayout | None) -> list[dict[str, Any]]:
    points = pose.category() if pose is not None else {}
    return [{"id": number, "name": name} | points for number, name in sorted(names.items())]


# Images and their label files


def _images(said: YoloDescription, key: str, bases: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The images, and the folders if nothing but folders was named."""
    images: dict[Path, None] = {}
    folders: list[Path] = []
    for text in said.places(key):
        place = find_exported(text, bases) if isinstance(text, str) else None
        if place is None:
            raise InputError(
                f"{said.file}: {key!r} is {text!r}, but {bases[0] / str(text)} is no folder and no list of images"
                + ("; without that line a tenth of the images is held out" if key in _KEYS["validation"] else "")
            )
        if place.is_dir():
            folders.append(place)
            images |= dict.fromkeys(_images_below(place))
        else:
            images |= dict.fromkeys(_listed(place, bases))
    if not images:
        raise InputError(f"{said.file}: there are no images in {key!r}: {', '.join(map(str, said.places(key)))}")
    return list(images), folders if len(folders) == len(said.places(key)) else []


def _demand_places_of_their_own(said: YoloDescription, key: str, bases: Sequence[Path]) -> None:
    """Raises InputError where other words than those of the training images lead to the same ones."""
    train = said.key("train")
    learnt = {str(text): find_exported(str(text), bases) for text in said.places(train)} if train else {}
    for text in map(str, said.places(key)):
        place = find_exported(text, bases)
        other = next((each for each, found in learnt.items() if found == place), None)
        if other is None:
            continue
        if text != other and not all(_stands_at(place, each, bases) for each in (text, other)):
            raise InputError(
                f"{said.file}: {train!r} is {other!r} and {key!r} is {text!r}; they are not both there, and without "
                f"their first folders both could be {place}: write the paths below {bases[0]}"
            )
        log.warning(
            "%s: %r and %r are both %s: what is measured there was seen in training", said.file, train, key, text
        )


def _stands_at(place: Path | None, text: str, bases: Sequence[Path]) -> bool:
    """Whether the text is the path of the place as it stands, and nothing had to be left out of it."""
    return any(Path(os.path.normpath(base / text.replace("\\", "/"))) == place for base in bases)


def _images_below(folder: Path) -> list[Path]:
    found = find_files(folder)
    report_links(folder, found)
    report_left_out(folder, (name for name in found.files if not is_image(name) and ending(name) not in _BESIDE))
    return [folder / name for name in found.files if is_image(name)]


def _listed(file: Path, bases: Sequence[Path]) -> list[Path]:
    """The images that a text file lists, one per line; those that are not there are counted."""
    lines = [line.strip().strip("\"'") for line in read_lines(file) if line.strip() and line[0] != "#"]
    found = {line: find_exported(line, (*bases, file.parent)) for line in dict.fromkeys(lines)}
    if len(found) < len(lines):
        log.warning("%s lists %d images more than once; each is taken once", file, len(lines) - len(found))
    files = {line: path for line, path in found.items() if path is not None and os.path.isfile(path)}
    missing = [line for line in found if line not in files]
    if len(missing) == len(found):
        raise InputError(
            f"{file}: none of the {len(found)} images that it lists is there, such as "
            f"{and_more(missing, 1) or 'nothing'}; the paths must begin at {' or '.join(map(str, bases))}"
        )
    log_left_out(str(file), missing, "listed images are not there and are left out")
    return list(files.values())


def _label_file(image: Path) -> Path | None:
    spelt = (file.with_suffix(case) for file in _label_places(image) for case in (".txt", ".TXT"))
    return next((file for file in spelt if os.path.isfile(file)), None)


def _label_places(image: Path) -> Iterable[Path]:
    """`images` in the path becomes `labels`, the last one first; or the file lies beside the image."""
    parts = image.with_suffix(".txt").parts
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() == "images":
            for labels in ("labels", "Labels"):
                yield Path(*parts[:place], labels, *parts[place + 1 :])
    yield Path(*parts)


def _report_labels(where: str, labels: dict[Path, Path | None], folders: Sequence[Path]) -> list[Problem]:
    """Images without labels, and labels without images, which are returned. Raises InputError where no image has
    any."""
    without = [str(image) for image, label in labels.items() if label is None]
    if len(without) == len(labels):
        first = next(iter(labels))
        places = dict.fromkeys(str(place.parent) for place in _label_places(first) if "Labels" not in place.parts)
        raise InputError(
            f"{where}: none of the {len(labels)} images has a label file; that of {first.name} and all other label "
            f"files must lie in {', which does not exist or has none, or in '.join(places)}; rename or move the folder "
            "with the .txt files"
        )
    if without:
        log.warning(
            "%s: %d of %d images have no label file and count as images without objects, such as %s",
            where, len(without), len(labels), and_more(without, 3),
        )  # fmt: skip
    used = set(labels.values())
    places = {place.parent for folder in folders for place in _label_places(folder / "x") if place.parent.is_dir()}
    lost = [
        place / name
        for place in sorted(places)
        for name in find_files(place).files
        if name.lower().endswith(".txt") and Path(name).name not in _NO_LABELS and place / name not in used
    ]
    log_left_out(where, list(map(str, lost)), "label files have no image and are left out")
    return [Problem(None, str(file), None, NO_IMAGE, _count_objects(file)) for file in lost]


def _count_objects(file: Path) -> int:
    """In a text file that may be no label file, such as a README."""
    try:
        lines = [line.split() for _, line in _lines(file)]
    except InputError:
        return 0
    return sum(len(values) >= 5 and all(map(_is_number, values)) for values in lines)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# One line


def _lines(file: Path) -> list[tuple[int, str]]:
    """(number, line) of those that say something. Raises InputError where the file is no text."""
    numbered = ((number, _plain(line)) for number, line in enumerate(read_lines(file), 1))
    return [(number, line) for number, line in numbered if line]


def _plain(line: str) -> str:
    """Without a comment, and with spaces between the numbers. `0 0,5 0,5 0,2 0,4` has decimal commas."""
    line = line.split("#", 1)[0]
    decimal = "." not in line and len(line.split()) >= 5
    return " ".join(line.replace(",", "." if decimal else " ").replace(";", " ").split())


def _lengths_with_tracks(labels: Iterable[Sequence[str]], where: str) -> frozenset[int]:
    """How many numbers those lines have that end with the number of a track, as trackers write them behind a box, or
    behind a box and its confidence: all of that length end with a whole number, no two of a file with the same one, and
    not all with 0 or 1, which are a confidence, or a corner at the border. Angles repeat, or have a fraction."""
    ends: dict[int, set[int]] = {length: set() for length in _TRACKED}
    for lines in labels:
        here: set[tuple[int, int]] = set()
        for values in (line.split() for line in lines):
            if len(values) not in ends:
                continue
            number = whole_number(values[-1])
            if number is None or (len(values), number) in here:
                del ends[len(values)]
            else:
                here.add((len(values), number))
                ends[len(values)].add(number)
    found = frozenset(length for length, numbers in ends.items() if max(numbers, default=0) > 1)
    if found:
        log.warning("%s: lines end with the number of a track, which is not used", where)
    return found


def _annotation(
    yolo: Any, line: str, width: int, height: int, pose: PoseLayout | None, tracked: frozenset[int]
) -> dict[str, Any]:
    """Raises ValueError where the line is none. Lines of so many numbers as `tracked` has end with a track's number."""
    values = line.split()
    if len(values) in tracked:
        values.pop()
    if _is_number(values[0]) and not abs(float(values[0])) < LIMIT:  # written out, 1e999999999 fills the memory
        raise ValueError(f"{values[0]:.20} is no class's id")
    points: dict[str, Any] = {}
    if pose is not None and len(values) > 6:
        if len(values) - 5 - pose.numbers not in (0, 1):  # the one is a confidence
            raise ValueError(
                f"{len(values)} numbers; kpt_shape says 5, or {5 + pose.numbers} for a box and {pose.count} key points"
            )
        points = pose.record(list(map(float, values[5 : 5 + pose.numbers])), width, height)
        values = values[:5]
    found = yolo.yolo_annotations_to_detections([" ".join(values)], (1, 1), with_masks=False)
    numbers = list(map(float, values[1:5] if len(values) == 6 else values[1:]))
    corners = numbers[: len(numbers) // 2 * 2]  # a last odd one is a confidence
    furthest = next((value for value in corners if not -_FURTHEST <= value <= 1 + _FURTHEST), None)
    if furthest is not None:
        raise ValueError(
            f"{furthest:g} is no fraction of the image (0 to 1); pixels must be divided by its width and height, and "
            "key points need kpt_shape in data.yaml"
        )
    if len(values) == 6 and not 0 <= float(values[5]) <= 1:
        raise ValueError(
            f"{values[5]} behind a box is no confidence (0 to 1); turned boxes are exported as four corners"
        )
    record: dict[str, Any] = {"category_id": int(found.class_id[0]), "iscrowd": 0} | points
    if len(numbers) == 4:
        x, y, w, h = numbers
        return record | {"bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]}
    xs, ys = [x * width for x in corners[0::2]], [y * height for y in corners[1::2]]
    return record | {
        "bbox": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)],
        "segmentation": [[value for point in zip(xs, ys, strict=True) for value in point]],
    }
