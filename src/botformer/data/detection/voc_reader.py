"""Pascal VOC's XML files -> the records of a COCO file. `supervision` reads each object.

VOC counts pixels from 1 and both ends belong to the box: xmin 1, xmax 10 are the first ten columns, x 0 to 10.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from botformer.data.detection.coco_reader import coco_dataset
from botformer.data.detection.dataset import NO_IMAGE, DetectionDataset, Problem
from botformer.data.detection.drawn_shapes import (
    Drawn,
    as_categories,
    categories_by_name,
    image_record,
    place_on_images,
)
from botformer.data.detection.exported_text import log_left_out, read_lines, read_text
from botformer.data.detection.supervision_formats import supervision_format
from botformer.data.image_files import find_files, folder_of, is_image
from botformer.errors import InputError
from botformer.read_file import read_bytes

log = logging.getLogger("botformer.data")

_IMAGES = ("JPEGImages", "images", "Images", "img")
_LOOKED_FOR = 20
"""XML files that are opened to know whose they are."""


class VocFolders(NamedTuple):
    annotations: Path
    images: Path
    lists: Path
    """Where NAME.txt lists the images of a split."""


def find_voc(root: Path) -> VocFolders | None:
    """In `root`, in the only VOC2012 or the like below it, or with each file beside its image. None where no XML is."""
    for parent in (root, root / "VOCdevkit"):
        years = sorted(parent.glob("VOC[0-9]*")) if parent.is_dir() else []
        if len(years) > 1 and find_voc(years[0]):
            raise InputError(
                f"{parent} has {' and '.join(year.name for year in years)}; give one of them, such as {years[0]}"
            )
        if years and (found := find_voc(years[0])):
            return found
    for name in ("Annotations", "annotations", ""):
        folder = root / name
        if folder.is_dir() and _is_voc(folder, everywhere=bool(name)):
            images = next((root / each for each in _IMAGES if (root / each).is_dir()), folder)
            return VocFolders(folder, images, root / "ImageSets" / "Main")
    return None


def find_voc_split(root: Path, name: str, voc: VocFolders | None) -> VocFolders | None:
    """A split in folders of its own: annotations/NAME beside images/NAME, or images/NAME with the files in it."""
    places = [(voc.annotations, voc.images)] if voc else []
    for annotations, images in (*places, *((root / each, root / each) for each in _IMAGES)):
        of_split = folder_of(annotations, name)
        if of_split is not None and _is_voc(of_split, everywhere=True):
            return VocFolders(of_split, folder_of(images, name) or images, of_split / "lists")
    return None


def _is_voc(folder: Path, everywhere: bool) -> bool:
    """Whether an XML file there is VOC's, or, in a folder that is called as VOC's, cannot be read."""
    files = (file for file in (folder.rglob("*") if everywhere else folder.iterdir()) if _is_xml(file.name))
    tags = set(map(_tag, islice(files, _LOOKED_FOR)))
    return "annotation" in tags or (everywhere and "" in tags)


def refuse_cvat(folder: Path) -> None:
    """Raises InputError where CVAT's own file for all images is there, which nothing else explains."""
    for file in (folder / "annotations.xml", folder / "annotations" / "annotations.xml"):
        if file.is_file() and _tag(file) == "annotations":
            raise InputError(
                f"{file} is in CVAT's own format, which is not read; export the task as COCO 1.0 or in one of the YOLO "
                "formats, with its images"
            )


def _is_xml(name: str) -> bool:
    return name.lower().endswith(".xml")


def _tag(file: Path) -> str:
    """Of the outermost element; empty where there is none."""
    root = _parsed(file)
    return "" if root is None else str(root.tag)


def open_voc(folders: VocFolders, listed: Path | None = None, max_bad_records: int = 20) -> DetectionDataset:
    """The images that the file `listed` names, one per line, or all of them.

    Objects marked `difficult` are crowds, as COCO calls them: VOC counts them neither for nor against a detector.
    Categories are the names in all files, of other splits too, so that every split has the same; ids from 1 in their
    order. Polygons are read where an object has them. Sizes are the images', objects of resized ones are scaled with
    them. An image without a file has no objects.

    Raises InputError as `coco_reader.open_coco`, and where `supervision` is not installed or no object has a name.
    """
    voc = supervision_format("pascal_voc", "Pascal VOC")
    where = f"{folders.annotations} ({listed.stem})" if listed else str(folders.annotations)
    files = [name for name in find_files(folders.annotations).files if _is_xml(name)]
    trees = {PurePosixPath(name).with_suffix("").as_posix(): _read(folders.annotations / name) for name in files}
    ids = categories_by_name(
        name for tree in trees.values() if tree is not None for each in tree.findall("object") if (name := _name(each))
    )
    if not ids:
        raise InputError(f"{folders.annotations}: none of the {len(files)} XML files has an <object> with a <name>")
    images = _Images(filter(is_image, find_files(folders.images).files))
    chosen, missing = _listed(listed, trees, images) if listed else _all(trees, images, where)
    drawn: list[Drawn] = []
    bad: list[Problem] = []
    without, from_zero, difficult = [], [], 0
    for image_id, (stem, image) in enumerate(chosen.items(), 1):
        tree = trees.get(stem)
        if stem in trees and tree is None:
            bad.append(Problem(image_id, image, None, f"{stem}.xml is not XML, or not of VOC"))
            continue
        record = image_record(image_id, folders.images, image)
        if tree is None:
            drawn.append(Drawn(record, None, []))
            without.append(image)
            continue
        annotations = []
        for number, element in enumerate(tree.findall("object"), 1):
            try:
                found = _annotation(voc, element, ids)
            except ValueError as error:
                bad.append(Problem(image_id, image, number, str(error)))
                continue
            annotations.append({"id": number, "image_id": image_id} | found)
            difficult += found["iscrowd"]
            if min(found["bbox"][:2]) < 0:
                from_zero.append(image)
        drawn.append(Drawn(record, _size(tree), annotations))
    log_left_out(where, without, "images have no XML file and count as images without objects")
    log_left_out(
        where, from_zero, "boxes begin at 0, where VOC counts from 1: they lie up to a pixel too far up and left"
    )
    if difficult:
        log.info(
            "%s: %d objects marked difficult count as crowds: neither for nor against a detector", where, difficult
        )
    placed, annotations, astray = place_on_images(drawn, folders.images, where)
    records = {"categories": as_categories(ids), "images": placed, "annotations": annotations}
    return coco_dataset(records, where, folders.images, max_bad_records, [*bad, *astray], missing)


class _Images:
    """Found by what an annotation file is called, or by what it says."""

    def __init__(self, names: Iterable[str]) -> None:
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        """More than one where 1.jpg and 1.png lie in one folder."""
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for name in sorted(names):
            self.by_stem[PurePosixPath(name).with_suffix("").as_posix()].append(name)
            self.by_name[PurePosixPath(name).name].append(name)
        for alike in self.by_stem.values():
            self.by_name[PurePosixPath(alike[0]).stem].append(alike[0])

    def find(self, stem: str, said: str | None = None) -> str | None:
        """By the same path, by the name that the file says, or by its own name in any folder, if there is but one."""
        named = PureWindowsPath(said or "").name
        if stem in self.by_stem:
            alike = self.by_stem[stem]
            return next((name for name in alike if PurePosixPath(name).name == named), alike[0])
        for name in (named, PurePosixPath(stem).name):
            if len(self.by_name.get(name, ())) == 1:
                return self.by_name[name][0]
        return None


def _all(trees: dict[str, Any], images: _Images, where: str) -> tuple[dict[str, str], list[Problem]]:
    """Stem of the annotation file -> image, and all other images; and files whose image is not there."""
    found = {stem: images.find(stem, tree.findtext("filename") if tree is not None else None)
             for stem, tree in trees.items()}  # fmt: skip
    log_left_out(where, [f"{stem}.xml" for stem, image in found.items() if image is None],
                 "XML files have no image and are left out")  # fmt: skip
    chosen = {stem: image for stem, image in found.items() if image is not None}
    used = {PurePosixPath(image).with_suffix("").as_posix() for image in chosen.values()}
    missing = [_without_image(stem, trees[stem]) for stem, image in found.items() if image is None]
    return chosen | {stem: alike[0] for stem, alike in images.by_stem.items() if stem not in used}, missing


def _without_image(stem: str, tree: Any) -> Problem:
    elements = [] if tree is None else tree.findall("object")
    return Problem(None, stem, None, NO_IMAGE, sum(not _is_difficult(element) for element in elements))


def _listed(file: Path, trees: dict[str, Any], images: _Images) -> tuple[dict[str, str], list[Problem]]:
    chosen: dict[str, str] = {}
    missing = []
    for line in filter(None, map(str.strip, read_lines(file))):
        stems = [PurePosixPath(each.replace("\\", "/")) for each in (line, line.split()[0])]
        stem = next((each.as_posix() for each in stems if each.as_posix() in trees), stems[-1].as_posix())
        if stem not in trees and stems[0].stem in trees:
            stem = stems[0].stem  # a line with an ending, or with a folder
        tree = trees.get(stem)
        image = images.find(stem, tree.findtext("filename") if tree is not None else None)
        if image is None:
            missing.append(_without_image(line, tree))
        else:
            chosen[stem] = image
    log_left_out(str(file), [each.file for each in missing], "listed images are not there and are left out")
    return chosen, missing


def _read(file: Path) -> Any:
    """The tree of <annotation>; None where the file holds none."""
    root = _parsed(file)
    return root if root is not None and root.tag == "annotation" else None


def _parsed(file: Path) -> Any:
    """The tree; None where the file is no XML."""
    from defusedxml.ElementTree import ParseError, fromstring  # comes with supervision; refuses bombs

    try:
        root = fromstring(read_bytes(file))
    except (ParseError, ValueError, LookupError):
        try:
            root = fromstring(read_text(file))
        except (ParseError, ValueError, LookupError, InputError):
            return None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    return root


def _name(element: Any) -> str:
    return (element.findtext("name") or "").strip()


def _is_difficult(element: Any) -> bool:
    return (element.findtext("difficult") or "0").strip().lower() in ("1", "true")


def _size(tree: Any) -> tuple[int, int] | None:
    """(width, height) as the file says; None where it does not."""
    try:
        size = int(float(tree.findtext("size/width"))), int(float(tree.findtext("size/height")))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _annotation(voc: Any, element: Any, ids: dict[str, int]) -> dict[str, Any]:
    """Raises ValueError where the object makes no sense."""
    try:
        polygons = [voc.parse_polygon_points(polygon) - 1 for polygon in element.findall("polygon")]
    except (IndexError, TypeError):
        raise ValueError("a polygon in which an x has no y") from None
    for polygon in element.findall("polygon"):
        element.remove(polygon)  # a mask of the whole image would be drawn of each
    name = _name(element)
    if not name:
        raise ValueError("the object has no <name>")
    alone = type(element)("annotation")
    alone.append(element)
    found, _ = voc.detections_from_xml_obj(alone, [], (1, 1))
    x1, y1, x2, y2 = map(float, found.xyxy[0])
    record: dict[str, Any] = {
        "category_id": ids[name],
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": int(_is_difficult(element)),
    }
    shapes = [polygon.reshape(-1).tolist() for polygon in polygons if len(polygon) >= 3]
    return record | ({"segmentation": shapes} if shapes else {})
