"""Data sets of the hub and folders of Parquet files, opened by the package datasets.

It copies Parquet files into its cache as Arrow files, once: of those any row can be read alone. The import takes
seconds, so it waits until something is listed.
"""

import importlib.util
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from botformer.data.classification.class_names import natural_order
from botformer.data.classification.split_names import read_split
from botformer.data.image_files import ending, is_hidden, is_image
from botformer.errors import InputError
from botformer.read_file import at_home, open_file
from botformer.text import and_more, printable

HUB_PREFIX = "hfds/"

_SHOWN = 20
_EXPECTED = "expected are columns image (an Image, or bytes) and label (a ClassLabel, text or whole numbers)"


def is_hub(data: str) -> bool:
    """hfds/OWNER/NAME, hfds/FOLDER, or a folder of nothing but Parquet files: directly, in data/, or in one per split.

    A Parquet file beside tars, images or class folders describes those.
    """
    if data.startswith(HUB_PREFIX):
        return True
    at = at_home(data)
    if not at.is_dir():
        return False
    below = (at / entry for entry in os.listdir(at) if entry == "data" or read_split(entry))
    return _holds_parquet(at) or any(_holds_parquet(folder) for folder in below if folder.is_dir())


def _holds_parquet(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not is_hidden(entry.name)]
    return any(ending(entry.name) == ".parquet" for entry in visible) and not any(
        os.path.isdir(entry.path) or is_image(entry.name) or ending(entry.name) == ".tar" for entry in visible
    )


@dataclass(frozen=True)
class HubRows:
    """The images of a split."""

    dataset: Any
    split: str

    def open(self, row: int) -> BinaryIO:
        image = self.dataset[row]["image"] or {}
        if image.get("bytes"):
            return io.BytesIO(image["bytes"])
        if image.get("path"):
            return open_file(image["path"])
        raise OSError("the row has no image")

    def name(self, row: int) -> str:
        return f"{self.split}[{row}]"  # getting a path, where there is one, would read the image as well


@dataclass(frozen=True)
class HubSplit:
    rows: HubRows
    class_names: tuple[str, ...]
    labels: np.ndarray
    """int64 (images,)."""
    splits: tuple[str, ...]
    """Names of all splits of the data set."""


def list_hub(data: str, split: str) -> HubSplit:
    """A split of what `is_hub` knows; "" is the only one.

    Raises:
        InputError: it cannot be opened, with the Parquet files that are broken, or its images have no labels.
    """
    if importlib.util.find_spec("datasets") is None:
        raise InputError(f"{data} needs the package datasets: pip install 'botformer[shards]'")
    import datasets

    path = os.path.expanduser(data.removeprefix(HUB_PREFIX))
    try:
        opened: Any = datasets.load_dataset(path, split=split or None)
        if not split and len(opened) == 1:
            split = str(next(iter(opened)))
            opened = opened[split]
    except Exception as error:  # hub, network, cache and formats raise exceptions of their own
        if broken := _broken_files(Path(path)):
            raise InputError(
                f"{data}: {len(broken)} Parquet {'file' if len(broken) == 1 else 'files'} cannot be read:\n"
                f"{and_more(broken, _SHOWN, chr(10))}\nCopy them again, or remove them"
            ) from error
        raise InputError(
            f"{data}, split {split!r}, cannot be opened ({type(error).__name__}: {error}); {_EXPECTED}, and the data "
            "set in a folder, in the local cache, or a connection to the hub"
        ) from error
    if not split:
        raise InputError(f"{data} has the splits {and_more(sorted(opened), _SHOWN)}; name one with --split")
    columns = opened.features
    if not {"image", "label"} <= columns.keys():
        raise InputError(f"{data} has the columns {and_more(sorted(columns), _SHOWN)}; {_EXPECTED}")
    class_names, labels = _labels(data, split, columns["label"], opened.data.column("label").to_pylist())
    try:
        images = opened.cast_column("image", datasets.Image(decode=False))
    except Exception as error:  # Arrow's, for each pair of types
        raise InputError(f"{data}: column image is of type {columns['image']}; {_EXPECTED}") from error
    return HubSplit(HubRows(images, split), class_names, labels, tuple(opened.info.splits or ()))


def _labels(data: str, split: str, column: Any, values: list[Any]) -> tuple[tuple[str, ...], np.ndarray]:
    """The names of the classes, and int64 (images,). Texts and numbers without names are names themselves, as in
    WebDataset's .cls files."""
    missing = sum(value is None or value == -1 or value == "" for value in values)
    if missing:
        raise InputError(f"{data}: split {split!r} has {missing} images without a label; choose a labelled split")
    if names := getattr(column, "names", None):
        return tuple(names), np.array(values, dtype=np.int64)
    if not all(isinstance(value, (int, str)) and not isinstance(value, bool) for value in values):
        raise InputError(f"{data}: column label is of type {column}; {_EXPECTED}")
    texts = [printable(str(value)) for value in values]
    class_names = natural_order(set(texts))
    index = {name: number for number, name in enumerate(class_names)}
    return class_names, np.array([index[text] for text in texts], dtype=np.int64)


def _broken_files(folder: Path) -> list[str]:
    """Lines with the Parquet files below a folder that cannot be read, and why."""
    import pyarrow
    from pyarrow import parquet

    broken = []
    for path in sorted(folder.rglob("*.parquet")):
        try:
            with parquet.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group)
        except (pyarrow.ArrowException, OSError) as error:
            broken.append(f"  {path}: {error}")
    return broken
