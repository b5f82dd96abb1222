"""Between botformer and annotation programs: botformer convert PREDICTIONS --to label_studio (or coco, or classes)."""

import logging
import os
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from botformer.errors import InputError
from botformer.read_file import read_json, understood
from botformer.terminal import screen
from botformer.text import counted

log = logging.getLogger("botformer")

_LOOKED_FOR = 20
"""Images."""


@dataclass(frozen=True)
class Arguments:
    predictions: Annotated[Path, tyro.conf.Positional]
    """The folder that `botformer predict` wrote: predictions.json and images.json. For --to classes: an export of Label
    Studio (JSON or JSON_MIN), with the images beside it or in folders there."""
    to: Literal["label_studio", "coco", "classes"]
    """label_studio: tasks with pre-annotations, and the labeling interface they belong to. coco: an annotation file
    that FiftyOne, CVAT and others import. classes: class folders of what people chose in Label Studio, to train a
    classifier on. (Exports with boxes and shapes are data as they are: botformer train detect --data DIR.)"""
    out: Path | None = None
    """What to write; by default label_studio.json or instances_predictions.json in the folder, or the folder classes
    beside the export."""
    threshold: float = 0.5
    """Detectors: objects with a lower score are left out."""
    shapes: Literal["brush", "polygon", "box"] = "brush"
    """Label Studio: how masks are drawn there."""
    at: str | None = None
    """Label Studio: what stands in front of each image's path; by default /data/local-files/?d=."""


def main(arguments: list[str]) -> None:
    convert(tyro.cli(Arguments, args=arguments, prog="botformer convert", description=__doc__))


def convert(given: Arguments) -> None:
    _check(given)
    if given.to == "classes":
        _write_classes(given.predictions, given.out)
        return
    records, images = _read(given.predictions)
    with understood(given.predictions, "predict again"):
        _write_annotations(given, records, images)


def _check(given: Arguments) -> None:
    if not 0 <= given.threshold <= 1:
        raise InputError(f"--threshold is a score between 0 and 1, got {given.threshold:g}")
    of_others = {"shapes": ("label_studio",), "at": ("label_studio",), "threshold": ("label_studio", "coco")}
    for name, formats in of_others.items():
        if given.to not in formats and getattr(given, name) != getattr(Arguments, name):
            raise InputError(f"--{name} is for --to {' and '.join(formats)}; leave it out")
    if given.out is not None and given.to != "classes":
        _demand_free(given.out, given.to)
    if given.to == "label_studio" and given.out is not None and given.out.suffix.lower() == ".xml":
        raise InputError(f"--out is the file of the tasks, such as {given.out.with_suffix('.json')}; the .xml with the "
                         "labeling interface comes beside it")  # fmt: skip


def _demand_free(out: Path, to: str) -> None:
    """A file that was named by mistake, such as an image or somebody's annotations, would be lost."""
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name the file in it, such as {out / 'annotations.json'}")
    written = (out, out.with_suffix(".xml")) if to == "label_studio" else (out,)
    there = next((file for file in written if file.exists()), None)
    if there is not None:
        raise InputError(f"{there} exists, and would be replaced; remove it, or name another --out")


def _write_annotations(given: Arguments, records: list[dict[str, Any]], images: dict[str, Any]) -> None:
    # Heavy, and --help should not wait for it.
    from botformer.atomic_write import write_json, write_text
    from botformer.data.detection.coco_writer import coco_of_predictions
    from botformer.data.detection.label_studio_writer import (
        LOCAL_FILES,
        below_one_folder,
        label_studio_tasks,
        labeling_config,
    )

    console = screen()
    if not isinstance(images["categories"], list) or not all(
        {"id", "name"} <= {*each} for each in images["categories"]
    ):
        raise TypeError("categories without id and name")
    if given.out is not None:
        given.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    names = [image["file_name"] for image in images["images"]]
    if not any(os.path.exists(name) for name in names[:_LOOKED_FOR]):
        log.warning("%s is not in this folder, nor are others: paths are those of where predict was called", names[0])
    folder, paths = below_one_folder([Path(name).absolute().as_posix() for name in names])
    below = {name: paths[Path(name).absolute().as_posix()] for name in names}
    if given.to == "coco":
        if any("top5" in record for record in records):
            raise InputError(f"{given.predictions} holds classes, and COCO's files hold objects; use --to label_studio")
        out = given.out or given.predictions / "instances_predictions.json"
        content = coco_of_predictions(records, images, given.threshold, below)
        write_json(out, content, indent=None)
        console.print(f"{len(content['annotations']):,} objects on {len(names):,} images: {out}")
        console.print(f"file_name is the path below {folder}")
        return
    out = given.out or given.predictions / "label_studio.json"
    at = LOCAL_FILES if given.at is None else given.at
    if given.at is None:  # of what is below its root it serves folders, not the root itself
        last = Path(folder).name
        below = {name: f"{last}/{path}" if last else path for name, path in below.items()}
    tasks = label_studio_tasks(records, images, given.threshold, given.shapes, at, below)
    write_json(out, tasks, indent=None)
    write_text(out.with_suffix(".xml"), labeling_config(tasks, images))
    kinds = [each["type"] for task in tasks for each in task["predictions"][0]["result"]]
    counts = counted(Counter(kinds), 5) or "nothing"
    console.print(f"{counts} on {len(tasks):,} images: {out}, and the labeling interface: {out.with_suffix('.xml')}")
    if given.at is None:
        console.print(
            "Label Studio shows images of its own machine if it is started with\n"
            "  LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={Path(folder).parent}"
        )


def _write_classes(file: Path, out: Path | None) -> None:
    from botformer.data.classification.label_studio_choices import read_choices, write_class_folders
    from botformer.data.detection.label_studio_export import is_label_studio

    try:
        content = read_json(file, "utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    if not is_label_studio(content):
        raise InputError(f"{file} is no export of Label Studio; expected one of its formats JSON and JSON-MIN")
    out = out or file.parent / "classes"
    classes = read_choices(content, file, file.parent)
    write_class_folders(classes, file.parent, out)
    names = list(classes.values())
    counts = counted(Counter(names), 10)
    screen().print(f"{counts}: {out}. Next: botformer train classify --data {shlex.quote(str(out))}")


def _read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    if folder.is_file():
        raise InputError(f"{folder} is a file; expected the folder that botformer predict wrote (--out)")
    contents: list[Any] = []
    for name, kind in (("predictions.json", list), ("images.json", dict)):
        try:
            content = read_json(folder / name)
        except FileNotFoundError:
            raise InputError(
                f"{folder / name} is not there; expected the folder that botformer predict wrote (--out)"
            ) from None
        except OSError as error:
            raise InputError(f"{folder / name} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{folder / name} is not JSON ({error}); predict again") from error
        if not isinstance(content, kind):
            raise InputError(f"{folder / name} holds a {type(content).__name__}, expected a {kind.__name__}")
        contents.append(content)
    records, images = contents
    if not {"images", "categories"} <= images.keys():
        raise InputError(f"{folder / 'images.json'} has no images and categories; predict again")
    if not images["images"]:
        raise InputError(f"{folder} holds predictions of no image; nothing to write")
    return records, images
