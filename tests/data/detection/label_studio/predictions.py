"""What `botformer predict` writes, of two images: objects of two categories with masks, or key points, or classes."""

from typing import Any

import numpy as np

from botformer import rle

SIZES = {1: (48, 64), 2: (31, 57)}
"""Image id -> (height, width)."""
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": 'dog "big" & <small>'}]


def masks() -> dict[int, list[np.ndarray]]:
    found = {}
    for image_id, (height, width) in SIZES.items():
        ys, xs = np.mgrid[:height, :width]
        disc = (ys - height / 2) ** 2 + (xs - width / 2) ** 2 < 100
        corner = np.zeros((height, width), dtype=bool)
        corner[:9, :13] = True
        found[image_id] = [disc, corner]
    return found


def box_of(mask: np.ndarray) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)]


def images(*names: str, **category: Any) -> dict[str, Any]:
    rows = [
        {"id": image_id, "file_name": name, "width": width, "height": height, "drawing": "x.png"}
        for name, (image_id, (height, width)) in zip(names, SIZES.items(), strict=True)
    ]
    return {"images": rows, "categories": [each | category for each in CATEGORIES], "unreadable": []}


def records(with_masks: bool = True) -> list[dict[str, Any]]:
    """The last object of each image is a doubtful one."""
    found = []
    for image_id, shapes in masks().items():
        for category, mask, score in zip(CATEGORIES, shapes, (0.9, 0.6), strict=True):
            record = {"image_id": image_id, "category_id": category["id"], "bbox": box_of(mask), "score": score}
            found.append(record | ({"segmentation": rle.encode(mask)} if with_masks else {}))
        found.append({**found[-1], "score": 0.2})
    return found
