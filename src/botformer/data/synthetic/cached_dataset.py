"""Generated data sets: their folder is created atomically and used again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botformer.atomic_write import atomic_folder, write_json
from botformer.errors import InputError
from botformer.read_file import read_json

Fill = Callable[[Path], Mapping[str, Any]]
"""Writes SPLIT/**/*.png or *.jpg into an empty folder; returns what its record contains besides the parameters."""


def cached_dataset(
    folder: Path, name: str, parameters: Mapping[str, Any], images: Mapping[str, int], fill: Fill
) -> bool:
    """Have `fill` write a folder, and keep its parameters in FOLDER/NAME.json. Returns whether it was written now.

    The folder appears once it is complete, never before. A finished folder of the same parameters, with as many
    `images` in each split as it must have, is used as it is.

    Raises `InputError` for a folder that holds something else.
    """
    if _taken(folder):
        _check_finished(folder, name, parameters, images)
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as unfinished:
        write_json(unfinished / f"{name}.json", {"parameters": dict(parameters), **fill(unfinished)})
    return True


def _taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _check_finished(folder: Path, name: str, parameters: Mapping[str, Any], images: Mapping[str, int]) -> None:
    what, file = name.replace("_", " "), f"{name}.json"
    advice = "name another folder or delete this one"
    try:
        found = read_json(folder / file)["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder} is not empty and is not a finished folder of {what} ({file}); {advice}") from None
    if found != parameters:
        raise InputError(f"{folder} holds {what} made with {found}, asked for were {dict(parameters)}; {advice}")
    for split, expected in images.items():
        there = sum(1 for file in (folder / split).rglob("*") if file.suffix in (".png", ".jpg"))
        if there != expected:
            raise InputError(f"{folder / split} holds {there} images, {expected} were written; {advice}")
