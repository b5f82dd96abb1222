"""Data sets of the hub and folders of Parquet files, listed by timm's reader.

timm is imported only where something is listed: the import takes seconds, and every worker process would pay for it.
`datasets` copies Parquet files into its cache as Arrow files, once: of those any row can be read alone.
"""

import importlib.util
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from botformer.data.classification.class_names import natural_order
from botformer.data.image_files import is_hidden
from botformer.errors import InputError
from botformer.text import and_more

HUB_PREFIX = "hfds/"

_SHOWN = 20


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
