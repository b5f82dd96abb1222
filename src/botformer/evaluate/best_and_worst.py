"""The images on which a detector does best and worst, truth beside prediction."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from botformer.data.detection.dataset import DetectionDataset, ImageRecord
from botformer.data.detection.keypoints import PIXEL_MIDDLE
from botformer.data.image_io import decode
from botformer.detection.evaluation.coco_eval import CocoEvaluator, Kind
from botformer.detection.rle_masks import RLEMasks
from botformer.plots import draw_detections as plots
from botformer.plots.draw_detections import Shown

_EACH = 3


def draw_best_and_worst(
    dataset: DetectionDataset,
    evaluator: CocoEvaluator,
    kind: Kind,
    threshold: float,
    max_megapixels: float,
    out: Path,
) -> None:
    """Draw the three best and the three worst images as PNG, with the detections that score `threshold` or more.

    Images are ranked by TP / (TP + FP + FN) at IoU 0.5, those of equal rank by how many objects they have, so that
    empty ones come last among both.
    """
    positions = {dataset.image(index).id: index for index in range(len(dataset))}
    accuracies = evaluator.per_image(kind, threshold)
    objects = {image_id: _objects(evaluator.images[image_id]) for image_id in accuracies}
    best = sorted(accuracies, key=lambda image_id: (-accuracies[image_id], -objects[image_id], positions[image_id]))[
        :_EACH
    ]
    worst = sorted(accuracies, key=lambda image_id: (accuracies[image_id], -objects[image_id], positions[image_id]))
    worst = [image_id for image_id in worst if image_id not in best][:_EACH]
    names = {category.id: category.name for category in dataset.categories}
    pairs = []
    for sort, image_ids in (("best", best), ("worst", worst)):
        for image_id in image_ids:
            record = dataset.image(positions[image_id])
            image = np.array(decode(dataset.folder / record.file, record.file, max_megapixels))
            found = [
                record for record in json.loads(evaluator.images[image_id]["found"]) if record["score"] >= threshold
            ]
            truth = _truth(image, record, dataset, kind)
            title = f"{sort}: {accuracies[image_id]:.2f} = TP / (TP + FP + FN) · {record.file}{_ignored(truth, record)}"
            pairs.append((title, truth, _prediction(image, found, names, dataset, kind)))
    plots.draw_pairs(pairs, out)


def _objects(image: dict[str, Any]) -> int:
    return sum(not record["iscrowd"] for record in json.loads(image["truth"]))


def _ignored(truth: Shown, record: ImageRecord) -> str:
    """How many objects are missing from the drawing: a detection there is no false positive."""
    count = len(record.annotations) - len(truth.names)
    return f" · {count} ignored, not drawn" if count else ""


def _truth(image: np.ndarray, record: ImageRecord, dataset: DetectionDataset, kind: Kind) -> Shown:
    """Without what is ignored: crowds, and what has a box alone where masks or key points are measured."""
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
        [dataset.categories[annotation.label - 1].name for annotation in objects],
        masks=_masks([annotation.segmentation for annotation in objects], image) if kind == "mask" else None,
        keypoints=_keypoints([annotation.keypoints for annotation in objects], dataset)
        if kind == "keypoints"
        else None,
        skeleton=dataset.skeleton,
    )


def _prediction(
    image: np.ndarray, found: list[dict[str, Any]], names: dict[int, str], dataset: DetectionDataset, kind: Kind
) -> Shown:
    boxes = np.array([record["bbox"] for record in found], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Shown(
        image,
        boxes,
        [names[record["category_id"]] for record in found],
        np.array([record["score"] for record in found]),
        _masks([record["segmentation"] for record in found], image) if kind == "mask" else None,
        _keypoints([_visible(record["keypoints"]) for record in found], dataset) if kind == "keypoints" else None,
        dataset.skeleton,
    )


def _keypoints(keypoints: list[Any], dataset: DetectionDataset) -> np.ndarray:
    """COCO's key points -> (n, K, 3) x, y, v, in pixels from the image's edge as boxes are."""
    points = np.array(keypoints, dtype=np.float64).reshape(-1, len(dataset.keypoint_names), 3)
    return points + (PIXEL_MIDDLE, PIXEL_MIDDLE, 0)


def _visible(keypoints: list[float]) -> list[float]:
    """A detector does not know what is hidden: all of its points are drawn alike."""
    return [2 if place % 3 == 2 else value for place, value in enumerate(keypoints)]


def _masks(segmentations: Sequence[Any], image: np.ndarray) -> RLEMasks:
    """Polygons and run-length encodings, which are COCO's two forms."""
    from faster_coco_eval import mask as coco_mask  # an extra, which classifiers do without

    height, width = image.shape[:2]
    encoded = [coco_mask.segmToRle(segmentation, width, height) for segmentation in segmentations]
    return RLEMasks([_with_text(mask) for mask in encoded], (height, width))


def _with_text(encoded: dict[str, Any]) -> dict[str, Any]:
    """Compressed counts come as bytes from some functions."""
    counts = encoded["counts"]
    return encoded | {"counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
