"""Data sets of the hub, listed by timm's reader.

timm is imported only where something is listed: the import takes seconds, and every worker process would pay for it.
"""

import importlib.util
import io
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from botformer.errors import InputError

HUB_PREFIX = "hfds/"


@dataclass(frozen=True)
class HubRows:
    """The images of a split."""

    dataset: Any
    split: str

    def open(self, row: int) -> BinaryIO:
        image = self.dataset[row]["image"]
        return io.BytesIO(image["bytes"]) if image["bytes"] else open(image["path"], "rb")

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
    """A split of hfds/OWNER/NAME, which may be a folder of Parquet files.

    Raises:
        InputError: it cannot be opened, or its images have no labels or classes without names.
    """
    if importlib.util.find_spec("datasets") is None:
        raise InputError(f"{data} needs the package datasets: pip install 'botformer[shards]'")
    from timm.data.readers.reader_hfds import ReaderHfds

    try:
        reader = ReaderHfds(data.removeprefix(HUB_PREFIX), split=split)
        labels = np.array(list(reader.iter_targets()), dtype=np.int64)
    except Exception as error:  # hub, network, cache and formats raise exceptions of their own
        raise InputError(
            f"{data}, split {split!r}, cannot be opened ({type(error).__name__}: {error}); expected are columns image "
            f"(an Image) and label (a ClassLabel), and the data set in the local cache or a connection to the hub"
        ) from error
    class_names = tuple(sorted(reader.class_to_idx, key=reader.class_to_idx.__getitem__))
    if not class_names:
        raise InputError(f"{data}: column label is not a ClassLabel, so the classes have no names")
    if len(labels) and labels.min() < 0:
        raise InputError(f"{data}: split {split!r} has images without a label (-1); choose a labelled split")
    return HubSplit(HubRows(reader.dataset, split), class_names, labels, tuple(reader.dataset.info.splits or ()))
