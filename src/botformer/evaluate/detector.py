"""Measure a detector: COCO's average precision, the best score threshold, curves, best and worst images.

OUT/predictions.json holds all detections as COCO's results, which anybody can score against the annotation file. Where
pycocotools scores masks, take `bbox` out of it first: it would sort them into small and large by their boxes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from botformer.atomic_write import write_json, write_text
from botformer.create import Loaded
from botformer.create.tile_and_flip import flip_of, with_tile
from botformer.data.detection.batches import detection_evaluation_batches
from botformer.data.detection.dataset import DetectionDataset, ImageId
from botformer.data.detection.layouts import open_detection_dataset
from botformer.data.detection.match_categories import match_categories
from botformer.detection import Detector
from botformer.detection.evaluation.coco_eval import CocoEvaluator, Kind, numbers_of
from botformer.detection.task import DetectionTask
from botformer.errors import InputError
from botformer.evaluate.best_and_worst import draw_best_and_worst
from botformer.evaluate.measure import measure
from botformer.evaluate.options import EvaluateOptions
from botformer.plots.precision_recall import draw_precision_recall
from botformer.recipes.schema import NO_TILED_KEYPOINTS, DetectionImages
from botformer.training.distributed import Accelerator

_BATCH_SIZE = 4
_CHOSEN_HERE = "these very images: best_f1 and community_ap flatter"


def evaluate_detector(options: EvaluateOptions, loaded: Loaded, accelerator: Accelerator) -> dict[str, Any] | None:
    """Evaluate, write metrics.json, predictions.json, precision_recall.png and best_and_worst.png to `options.out`, and
    return what metrics.json holds. In processes other than the first: None.

    Raises:
        InputError: categories in the data that the checkpoint does not know, or no image record has the key `by`.
    """
    model, model_config = loaded
    assert isinstance(model, Detector)
    known = [(number, name) for number, name in model_config["categories"]]
    with_keypoints = model.kind == "keypoint_rcnn"
    if options.tile and with_keypoints:
        raise InputError(f"{NO_TILED_KEYPOINTS}; leave --tile out")
    images = with_tile(DetectionImages(**model_config["images"]), options.tile)
    flip = flip_of(model_config) if options.flip else None
    tolerated = images.max_bad_records if options.max_bad_records is None else options.max_bad_records
    dataset = open_detection_dataset(options.data, options.split, with_keypoints, tolerated)
    dataset = match_categories(dataset, known, str(options.checkpoint))
    categories = [(category.id, category.name) for category in dataset.categories]
    if with_keypoints:
        _check_keypoints(model_config["keypoint_names"], dataset, options)
    groups = {} if options.by is None else _groups(dataset, options.by)
    batch_size = _BATCH_SIZE if options.batch_size is None else options.batch_size
    part = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    batches = detection_evaluation_batches(
        dataset, images, batch_size, options.workers, at_most=options.at_most, canvas=model.test_size, **part
    )
    task: Any = DetectionTask(model, model_config, categories, set(), flip).to(accelerator.device)
    evaluator, skipped = measure(task, batches, accelerator, options.on_progress)
    if not accelerator.is_main_process:
        return None
    assert isinstance(evaluator, CocoEvaluator)
    metrics: dict[str, Any] = (
        options.header("detection", flip is not None)
        | {"tile": images.tile, "max_detections": evaluator.max_detections, "threshold_chosen_on": _CHOSEN_HERE}
        | _measured(evaluator)
        | _of_groups(evaluator, options.by, groups)
        | {"not_measured": _not_measured(dataset, evaluator, skipped)}
        | {"skipped": {"images": skipped, "annotations": [problem._asdict() for problem in dataset.problems]}}
    )
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "predictions.json", json.dumps(evaluator.results(), ensure_ascii=False) + "\n")
    write_json(out / "metrics.json", metrics)
    curves = [
        (f"{kind}, IoU {iou}", *evaluator.precision_recall(kind, iou), metrics[kind][f"AP{iou * 100:.0f}"])
        for kind in evaluator.kinds
        for iou in (0.5, 0.75)
    ]
    draw_precision_recall(curves, out / "precision_recall.png")
    kind = evaluator.kinds[-1]
    threshold = metrics[kind]["best_f1"]["threshold"]
    draw_best_and_worst(dataset, evaluator, kind, threshold, images.max_megapixels, out / "best_and_worst.png")
    return metrics


def _measured(evaluator: CocoEvaluator) -> dict[str, Any]:
    """Counts, and for each kind COCO's numbers, those of every category, and those at the best threshold."""
    measured = _counts(evaluator)
    for kind in evaluator.kinds:
        best = evaluator.best_f1(kind)
        measured[kind] = _numbers(evaluator, kind, best.threshold) | {
            "best_f1": best._asdict(),
            "per_class": evaluator.per_class(kind),
        }
    return measured


def _not_measured(dataset: DetectionDataset, evaluator: CocoEvaluator, skipped: Mapping[str, str]) -> dict[str, int]:
    """Objects of the data that the numbers leave out, crowds apart: records that could not be used, objects of images
    that could not be read, and, for masks and key points, objects that have none, which count neither way."""
    images = [image for image in map(dataset.image, range(len(dataset))) if image.file in skipped]
    left_out = {
        "annotations_left_out": dataset.objects_left_out,
        "objects_in_unreadable_images": sum(not found.crowd for image in images for found in image.annotations),
    }
    counted = {kind: sum(row["objects"] for row in evaluator.per_class(kind)) for kind in evaluator.kinds}
    return (
        {"objects": sum(left_out.values()), "of_objects": dataset.objects + dataset.objects_left_out}
        | left_out
        | {f"objects_without_{kind}": counted["box"] - counted[kind] for kind in evaluator.kinds if kind != "box"}
    )


def _of_groups(evaluator: CocoEvaluator, key: str | None, groups: Mapping[str, Sequence[ImageId]]) -> dict[str, Any]:
    """The same of every group of images, at the thresholds that are best for all images together."""
    if key is None:
        return {}
    parts = {
        value: evaluator.only(image_id for image_id in image_ids if image_id in evaluator.images)
        for value, image_ids in groups.items()
    }
    measured = {value: _counts(part) for value, part in parts.items()}
    for kind in evaluator.kinds:
        threshold = evaluator.best_f1(kind).threshold
        for value, part in parts.items():
            measured[value][kind] = _numbers(part, kind, threshold)
    return {"by": {key: measured}}


def _counts(evaluator: CocoEvaluator) -> dict[str, Any]:
    return {
        "images": len(evaluator.images),
        "objects": sum(row["objects"] for row in evaluator.per_class("box")),
        "detections": len(evaluator.results()),
    }


def _numbers(evaluator: CocoEvaluator, kind: Kind, threshold: float) -> dict[str, Any]:
    numbers = evaluator.compute()
    accuracies = evaluator.community_ap(kind, threshold)
    return {name: numbers[f"{kind}_{name}"] for name in numbers_of(kind)} | {
        "community_ap": {f"{iou:g}": accuracy for iou, accuracy in accuracies.items()}
    }


def _groups(dataset: DetectionDataset, key: str) -> dict[str, list[ImageId]]:
    """Value of the key -> ids of the images, in the order of the values. Raises where no image has the key."""
    groups: dict[str, list[ImageId]] = {}
    keys: set[str] = set()
    for index in range(len(dataset)):
        image = dataset.image(index)
        keys |= image.more.keys()
        groups.setdefault(str(image.more.get(key, "(none)")), []).append(image.id)
    if key not in keys:
        raise InputError(
            f"--by {key}: no image record of {dataset.where} has that key with a text or a number; the keys there: "
            f"{', '.join(sorted(keys)) or 'none'}"
        )
    return dict(sorted(groups.items()))


def _check_keypoints(known: Sequence[str], dataset: DetectionDataset, options: EvaluateOptions) -> None:
    if list(dataset.keypoint_names) != list(known):
        raise InputError(
            f"{options.checkpoint} detects the key points {', '.join(known)}; {dataset.where} has "
            f"{', '.join(dataset.keypoint_names) or 'none'}; they must be the same ones in the same order: change the "
            "annotations, or evaluate a detector that was trained on such key points"
        )
