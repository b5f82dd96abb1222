"""The classes that people chose in Label Studio -> images in class folders."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from botformer.atomic_write import atomic_folder
from botformer.data.detection.label_studio_export import Task, image_files, read_tasks
from botformer.errors import InputError
from botformer.text import and_more

log = logging.getLogger("botformer.data")

_CONTROLS = ("class", "label", "category", "choice", "choices")
"""What the control with the class may be called, if there are several."""


def read_choices(content: Sequence[Any], file: Path, root: Path) -> dict[str, str]:
    """Paths of images below `root`, with slashes -> the class of each, from an export (JSON or JSON_MIN).

    Images of which no class or several were chosen, and images that are not there, are left out and counted.

    Raises:
        InputError: no image has a class, none is there, or nobody can know which control holds the class.
    """
    where = str(file)
    chosen = {task.image: _choices(task) for task in read_tasks(content, where)}
    control = _control(chosen, where)
    classes = {image: values[control] for image, values in chosen.items() if control in values}
    several = [image for image, values in classes.items() if len(values) != 1]
    files = image_files(classes, root, where)
    found = {files[image]: values[0] for image, values in classes.items() if image in files and len(values) == 1}
    for images, what in (
        ([image for image in chosen if image not in classes], "have no class"),
        (several, "have several classes"),
        ([image for image in classes if image not in files], f"are not in {root}"),
    ):
        if images:
            log.warning("%s: %d images %s and are left out, such as %s", where, len(images), what, and_more(images, 3))
    if not found:
        raise InputError(f"{file}: none of its {len(chosen)} annotated images has one class and a file in {root}")
    return found


def write_class_folders(classes: Mapping[str, str], root: Path, out: Path) -> None:
    """Copies of the images as OUT/CLASS/NAME; a folder within `root` becomes a part of the name.

    Raises:
        InputError: `out` is there, or a class whose name cannot be that of a folder.
    """
    if out.exists():
        raise InputError(f"{out} is there already; name another --out")
    for name in set(classes.values()):
        check_folder_name(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out) as unfinished:
        for image, name in classes.items():
            (unfinished / name).mkdir(exist_ok=True)
            shutil.copyfile(root / image, unfinished / name / image.replace("/", "_"))


def check_folder_name(name: str) -> None:
    """Raises `InputError` for a class that cannot be the name of a folder."""
    if not name.isprintable() or name != PurePosixPath(name).name or "\\" in name or name[:1] in ("", "."):
        raise InputError(f"the class {name!r} cannot be the name of a folder; call it something else")


def _choices(task: Task) -> dict[str, list[str]]:
    """Control -> what was chosen there."""
    found: dict[str, list[str]] = {}
    for region in task.regions:
        value = region.get("value")
        values = value.get("choices") if isinstance(value, dict) else None
        if isinstance(values, list) and values and all(isinstance(each, str) for each in values):
            found.setdefault(str(region.get("from_name")), []).extend(values)
    return {control: list(dict.fromkeys(values)) for control, values in found.items()}


def _control(chosen: Mapping[str, Mapping[str, list[str]]], where: str) -> str:
    """In JSON_MIN the address of the image is a text like a choice."""
    likely = {
        control: None for image, choices in chosen.items() for control, names in choices.items() if image not in names
    }
    if len(likely) > 1:
        named = [control for name in _CONTROLS for control in likely if control.lower() == name]
        likely = dict.fromkeys(named[:1]) or likely
    if not likely:
        raise InputError(f"{where}: no class was chosen for any image; expected a control <Choices>")
    if len(likely) > 1:
        raise InputError(
            f"{where}: {', '.join(likely)} are chosen for images; call the control that holds the class 'class'"
        )
    return next(iter(likely))
