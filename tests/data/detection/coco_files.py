"""Small annotation files in COCO's layout, with images, made on the spot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 0, "name": "naïve 人"}, {"id": 7, "name": "cell"}]
"""Ids with gaps, from 0, out of order. Labels follow the ids: 1 naïve 人, 2 cell, 3 toothbrush."""


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    """bool (height, width): pixels whose middles lie within."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def compressed(mask: np.ndarray) -> dict[str, Any]:
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """Counted one pixel after the other."""
    counts, inside = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != inside:
            counts.append(0)
            inside = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def annotation(number: int, image: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": 7, "bbox": bbox, "iscrowd": 0} | more


def image(number: int, name: str = "", width: int = 40, height: int = 30, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name or f"{number}.png", "width": width, "height": height} | more


def content(images: list[dict], annotations: list[dict], categories: list[dict] | None = None) -> dict[str, Any]:
    return {"images": images, "annotations": annotations, "categories": categories or CATEGORIES}


def write(root: Path, data: dict[str, Any], name: str = "instances_train.json", folder: str = "train") -> Path:
    """The annotation file, and noise for every image. Returns the file's path."""
    for record in data["images"]:
        file = root / folder / record["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(record["id"]).integers(0, 256, (record["height"], record["width"], 3))
        Image.fromarray(noise.astype(np.uint8)).save(file)
    path = root / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path
