"""Instance masks -> an annotation file in COCO's layout, shapes as compressed run lengths."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from botformer import run_lengths
from botformer.data.detection_source import Category


class CocoWriter:
    """The pictures and objects of one split, numbered from 1 in the order in which they come."""

    def __init__(self, categories: Sequence[Category]) -> None:
        self._categories = categories
        self._pictures: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add_picture(self, file: str, height: int, width: int) -> None:
        """The objects that are added next lie in it."""
        self._pictures.append({"id": len(self._pictures) + 1, "file_name": file, "width": width, "height": height})

    def add_object(self, mask: np.ndarray, category: Category, crowd: bool = False) -> None:
        """`mask` is bool (height, width), as large as the picture added last, and not empty.

        A crowd is what evaluation neither asks for nor holds against a detection.
        """
        picture = self._pictures[-1]
        assert mask.shape == (picture["height"], picture["width"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": picture["id"],
                "category_id": category.id,
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": int(np.count_nonzero(mask)),
                "iscrowd": int(crowd),
                "segmentation": run_lengths.encode_window(mask, (0, 0), (picture["height"], picture["width"])),
            }
        )

    def save(self, file: Path) -> None:
        """Makes the folder if there is none."""
        file.parent.mkdir(exist_ok=True)
        content = {
            "images": self._pictures,
            "annotations": self._annotations,
            "categories": [category._asdict() for category in self._categories],
        }
        file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
