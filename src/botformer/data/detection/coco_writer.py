"""Instance masks -> an annotation file in COCO's layout, shapes as compressed run lengths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from botformer import rle
from botformer.atomic_write import write_json
from botformer.data.detection.dataset import Category


class CocoWriter:
    """The images and objects of one split, numbered from 1 in the order in which they come."""

    def __init__(self, categories: Sequence[Category]) -> None:
        self._categories = categories
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add_image(self, file: str, height: int, width: int) -> None:
        """The objects that are added next lie in it."""
        self._images.append({"id": len(self._images) + 1, "file_name": file, "width": width, "height": height})

    def add_object(self, mask: np.ndarray, category: Category, crowd: bool = False) -> None:
        """`mask` is bool (height, width), as large as the image added last, and not empty.

        A crowd is what evaluation neither asks for nor holds against a detection.
        """
        image = self._images[-1]
        assert mask.shape == (image["height"], image["width"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": image["id"],
                "category_id": category.id,
                "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                "area": int(np.count_nonzero(mask)),
                "iscrowd": int(crowd),
                "segmentation": rle.encode_window(mask, (0, 0), (image["height"], image["width"])),
            }
        )

    def save(self, file: Path) -> None:
        """Makes the folder if there is none."""
        file.parent.mkdir(exist_ok=True)
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [category._asdict() for category in self._categories],
        }
        write_json(file, content, indent=None)
