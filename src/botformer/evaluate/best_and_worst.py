"""The images on which a detector does best and worst, truth beside prediction."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from botformer.data.detection.keypoints import PIXEL_MIDDLE

if TYPE_CHECKING:
    from botformer.data.detection.dataset import DetectionDataset, ImageRecord
    from botformer.detection.evaluation.coco_eval import CocoEvaluator, Kind
    from botformer.plots.detections import Shown

_EACH = 3


def draw_best_and_worst(
    source: "DetectionDataset",
    metrics: "CocoEvaluator",
    kind: "Kind",
    threshold: float,
    max_megapixels: float,
    out: Path,
) -> None:
    """Draw as PNG three images of each sort, with the detections that score `threshold` or more.

    Images are ranked by TP / (TP + FP + FN) at IoU 0.5, those of equal rank by how many objects they have, so that
    empty ones come last in both sorts.
    """
    from botformer.data.image_io import decode
    from botformer.plots.detections import draw_pairs

    places = {source.image(index).id: index for index in range(len(source))}
    shares = metrics.per_image(kind, threshold)
    objects = {image_id: _objects(metrics.images[image_id]) for image_id in shares}
    best = sorted(shares, key=lambda image_id: (-shares[image_id], -objects[image_id], places[image_id]))[:_EACH]
    worst = sorted(shares, key=lambda image_id: (shares[image_id], -objects[image_id], places[image_id]))
    worst = [image_id for image_id in worst if image_id not in best][:_EACH]
    names = {category.id: category.name for category in source.categories}
    pairs = []
    for sort, image_ids in (("best", best), ("worst", worst)):
        for image_id in image_ids:
            record = source.image(places[image_id])
            image = np.array(decode(source.folder / record.file, record.file, max_megapixels))
            found = [record for record in json.loads(metrics.images[image_id]["found"]) if record["score"] >= threshold]
            truth = _truth(image, record, source, kind)
            title = f"{sort}: {shares[image_id]:.2f} = TP / (TP + FP + FN) · {record.file}{_ignored(truth, record)}"
            pairs.append((title, truth, _prediction(image, found, names, source, kind)))
    draw_pairs(pairs, out)


def _objects(image: dict[str, Any]) -> int:
    return sum(not record["iscrowd"] for record in json.loads(image["truth"]))


def _ignored(truth: "Shown", record: "ImageRecord") -> str:
    """Where they are detected nothing is wrong, which the drawing alone would not explain."""
    count = len(record.annotations) - len(truth.names)
    return f" · {count} ignored, not drawn" if count else ""


def _truth(image: np.ndarray, record: "ImageRecord", source: "DetectionDataset", kind: "Kind") -> "Shown":
    """Without what counts neither way: crowds, and what has a box alone where masks or key points are measured."""
    from botformer.plots.detections import Shown

    objects = [
        annotation
        for annotation in record.annotations
        if not annotation.crowd
        and (kind != "mask" or annotation.segmentation is not None)
        and (kind != "keypoints" or annotation.num_keypoints)
    ]
    return Shown(
        image,
        np.array([annotation.box_xyxy for annotation in objects], dtype=np.float64).reshape(-1, 4),
        [source.categories[annotation.label - 1].name for annotation in objects],
        masks=_Masks([annotation.segmentation for annotation in objects], image) if kind == "mask" else None,
        keypoints=_keypoints([annotation.keypoints for annotation in objects], source) if kind == "keypoints" else None,
        skeleton=source.skeleton,
    )


def _prediction(
    image: np.ndarray, found: list[dict[str, Any]], names: dict[int, str], source: "DetectionDataset", kind: "Kind"
) -> "Shown":
    from botformer.plots.detections import Shown

    boxes = np.array([record["bbox"] for record in found], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Shown(
        image,
        boxes,
        [names[record["category_id"]] for record in found],
        np.array([record["score"] for record in found]),
        _Masks([record["segmentation"] for record in found], image) if kind == "mask" else None,
        _keypoints([_visible(record["keypoints"]) for record in found], source) if kind == "keypoints" else None,
        source.skeleton,
    )


def _keypoints(keypoints: list[Any], source: "DetectionDataset") -> np.ndarray:
    """COCO's key points -> (n, K, 3) x, y, v, in pixels from the image's edge as boxes are."""
    points = np.array(keypoints, dtype=np.float64).reshape(-1, len(source.keypoint_names), 3)
    return points + (PIXEL_MIDDLE, PIXEL_MIDDLE, 0)


def _visible(keypoints: list[float]) -> list[float]:
    """A detector does not know what is hidden: all of its points are drawn alike."""
    return [2 if place % 3 == 2 else value for place, value in enumerate(keypoints)]


class _Masks(Sequence[np.ndarray]):
    """Shapes in either of COCO's forms as bool arrays (h, w), each made when it is asked for: a thousand at once would
    not fit into memory."""

    def __init__(self, shapes: Sequence[Any], image: np.ndarray) -> None:
        self._shapes = shapes
        self._size = image.shape[:2]

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: Any) -> Any:
        from faster_coco_eval import mask

        height, width = self._size
        return mask.decode(mask.segmToRle(self._shapes[index], width, height)).astype(bool)
