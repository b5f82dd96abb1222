"""Instance masks or predictions, with or without key points -> an annotation file in COCO's layout, shapes as RLE."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from botformer import rle
from botformer.atomic_write import write_json
from botformer.data.detection.dataset import Category
from botformer.data.detection.keypoints import NO_KEYPOINTS, KeypointLayout, Keypoints
from botformer.data.detection.mask_targets import area_px


class CocoWriter:
    """The images and objects of one split, numbered from 1 in the order in which they come."""

    def __init__(self, categories: Sequence[Category], layout: KeypointLayout = NO_KEYPOINTS) -> None:
        self._categories, self._layout = categories, layout
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add_image(self, file: str, height: int, width: int) -> None:
        """The objects that are added next lie in it."""
        self._images.append({"id": len(self._images) + 1, "file_name": file, "width": width, "height": height})

    def add_object(
        self, mask: np.ndarray, category: Category, crowd: bool = False, keypoints: Keypoints | None = None
    ) -> None:
        """`mask` is bool (height, width), as large as the image added last, and not empty.

        A crowd is what evaluation neither asks for nor holds against a detection. `keypoints` are those of the layout,
        none where the object has none.
        """
        image = self._images[-1]
        assert mask.shape == (image["height"], image["width"])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        record = {
            "id": len(self._annotations) + 1,
            "image_id": image["id"],
            "category_id": category.id,
            "bbox": [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
            "area": int(np.count_nonzero(mask)),
            "iscrowd": int(crowd),
            "segmentation": rle.encode_window(mask, (0, 0), (image["height"], image["width"])),
        }
        if self._layout.names:
            points = keypoints or ((0, 0, 0),) * len(self._layout.names)
            assert len(points) == len(self._layout.names)
            record["keypoints"] = [value for point in points for value in point]
            record["num_keypoints"] = sum(v > 0 for _, _, v in points)
        self._annotations.append(record)

    def save(self, file: Path) -> None:
        """Makes the folder if there is none."""
        file.parent.mkdir(exist_ok=True)
        points = coco_layout(self._layout)
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [category._asdict() | points for category in self._categories],
        }
        write_json(file, content, indent=None)


def coco_layout(layout: KeypointLayout) -> dict[str, Any]:
    """`keypoints` and `skeleton` (from 1) of a category in COCO's form; nothing for objects without key points."""
    if not layout.names:
        return {}
    return {"keypoints": list(layout.names), "skeleton": [[a + 1, b + 1] for a, b in layout.skeleton]}


def coco_of_predictions(
    records: Sequence[Mapping[str, Any]],
    images: Mapping[str, Any],
    threshold: float = 0.5,
    paths: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a detector predicted as a whole annotation file, which other programs import as if people had drawn it.

    Args:
        records: what predictions.json holds, COCO's results. Shapes may also be polygons; what has no score is sure.
        images: what images.json holds: the images, also those on which nothing was found, and the categories.
        threshold: objects with a lower score are left out; the score of the others is kept.
        paths: `file_name` -> what it is called in the file; by default as it is.

    Image ids that are no whole numbers, which few programs can read, become 1, 2, ...
    """
    ids = {image["id"]: image["id"] for image in images["images"]}
    if not all(isinstance(each, int) for each in ids):
        ids = {image["id"]: number for number, image in enumerate(images["images"], 1)}
    sizes = {image["id"]: (image["width"], image["height"]) for image in images["images"]}
    annotations = []
    for record in records:
        if record.get("score", 1.0) < threshold:
            continue
        annotation = dict(record) | {"id": len(annotations) + 1, "image_id": ids[record["image_id"]], "iscrowd": 0}
        if "segmentation" in record:
            annotation["area"] = area_px(record["segmentation"], *sizes[record["image_id"]])
        else:
            annotation["area"] = record["bbox"][2] * record["bbox"][3]
        if "keypoints" in record:
            annotation["num_keypoints"] = sum(seen > 0 for seen in record["keypoints"][2::3])
        annotations.append(annotation)
    return {
        "images": [
            {
                "id": ids[image["id"]],
                "file_name": paths[image["file_name"]] if paths else image["file_name"],
                "width": image["width"],
                "height": image["height"],
            }
            for image in images["images"]
        ],
        "annotations": annotations,
        "categories": images["categories"],
    }
