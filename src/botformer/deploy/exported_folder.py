"""The folder of an exported network: the model's files, config.json and run.py. Written whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botformer.atomic_write import atomic_folder, write_json
from botformer.errors import InputError
from botformer.read_file import open_file, read_json, understood
from botformer.text import and_more

CONFIG = "config.json"
_VERSION_KEY, _VERSION = "botformer_export", 1
_NOBODYS = {"__pycache__", ".DS_Store"}
"""What Python and macOS leave in any folder."""


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of an exported network. Raises `InputError` for any other folder."""
    file = folder / CONFIG
    try:
        config = read_json(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not an exported network: {file} {_why(error)}; run botformer export") from error
    if not isinstance(config, dict) or config.get(_VERSION_KEY) != _VERSION:
        raise InputError(f"{file} was not written by this version of botformer export; export the network again")
    with understood(file, "copy it again, or export the network again"):
        _check(config)
    return config


def _check(config: Mapping[str, Any]) -> None:
    """What is read everywhere. Raises LookupError, TypeError or AttributeError."""
    texts = [config[name] for name in ("format", "precision", "task")]
    for row in (*config["inputs"], *config["outputs"]):
        texts += [row["name"], row["dtype"]]
        if not all(isinstance(side, int | str | None) for side in row["shape"]):  # None: it follows from others
            raise TypeError(f"shape {row['shape']!r:.80}")
    texts += [file["sha256"] for file in config["files"].values()]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{text!r:.80} is no text")


def _why(error: Exception) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"


def check_files(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise `InputError` where a file is missing or is not the one that was written."""
    for name, expected in config["files"].items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file} is missing; copy the folder again, or export the network again")
        if sha256(file) != expected["sha256"]:
            raise InputError(f"{file} is not what was exported (its sha256 differs from config.json's); copy it again")


def write_config(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Add the version and the sha256 of every file in the folder, and write config.json. Returns what was written."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != CONFIG
    }
    written = {_VERSION_KEY: _VERSION, **config, "files": files}
    write_json(folder / CONFIG, written)
    return written


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill, which becomes `folder` once it is whole; its parents are made.

    An exported network that was there before is replaced then, and stays if anything goes wrong. A process that is
    killed between the two renames leaves both, whole, as .NAME.new and .NAME.old.
    """
    check_free(folder)
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / CONFIG).is_file():
        with atomic_folder(folder) as unfinished:
            yield unfinished
        return
    new, old = (folder.with_name(f".{folder.name}.{age}") for age in ("new", "old"))
    for leftover in (new, old):
        check_free(leftover)
        shutil.rmtree(leftover, ignore_errors=True)
    with atomic_folder(new) as unfinished:
        yield unfinished
    check_free(folder)  # again: somebody may have written into it meanwhile
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)


def check_free(folder: Path) -> None:
    """Raise `InputError` where `folder` cannot become an exported network."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the exported network")
    content = sorted(path.name for path in folder.iterdir())
    if content and not (folder / CONFIG).is_file():
        raise InputError(
            f"{folder} is there and is not an exported network (it holds {and_more(content, 3)}); name another folder"
        )
    if not content:
        return
    try:
        config = read_config(folder)
    except InputError as error:
        raise InputError(f"{folder} cannot be replaced ({error}): delete it, or name another folder") from error
    exported = {CONFIG, *config["files"]}
    files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    others = [file.as_posix() for file in files if file.as_posix() not in exported and not _NOBODYS & set(file.parts)]
    if others:
        raise InputError(
            f"{folder} is not replaced: beside the exported network it holds {and_more(others, 3)}; move that "
            "elsewhere, or name another folder"
        )


def sha256(file: Path) -> str:
    with open_file(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
