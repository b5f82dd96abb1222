"""Measure a detector: COCO's average precision, the score threshold to draw from, curves, best and worst images.

OUT/results.json holds all detections in COCO's form, which anybody can score against the data set's annotation file.
Where pycocotools judges masks, take `bbox` out of it first: it would sort them into small and large by their boxes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from botformer.commands.evaluate import Arguments
from botformer.errors import InputError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from botformer.create import Loaded
    from botformer.data.detection.dataset import DetectionDataset
    from botformer.detection.evaluation.coco_eval import CocoEvaluator, Kind

_BATCH_SIZE = 4
_LISTED = 12
"""Categories that a message spells out."""
_ON_SCREEN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
_SAME_AS = {"AR100": "AR"}
"""What key points have in its place."""
_CHOSEN_HERE = "these very images: best_f1 and community_ap flatter"


def evaluate_detector(given: Arguments, loaded: "Loaded", accelerator: "Accelerator") -> dict[str, Any]:
    """Evaluate, write results.json, metrics.json, precision_recall.png and best_and_worst.png to `given.folder`, and
    return what metrics.json holds. In processes other than the first: only which task it was.

    Raises `InputError` where the categories of the data are not those of the checkpoint, or --by is no key of theirs.
    """
    from accelerate.utils import gather_object
    from rich.progress import track

    from botformer.create.from_checkpoint import weights_file
    from botformer.data.detection.batches import detection_evaluation_batches
    from botformer.data.detection.layouts import open_detection_dataset
    from botformer.detection import Detector
    from botformer.detection.evaluation.coco_eval import CocoEvaluator
    from botformer.detection.task import DetectionTask
    from botformer.evaluate.best_and_worst import draw_best_and_worst
    from botformer.plots.precision_recall import draw_precision_recall
    from botformer.recipes.schema import DetectionImages
    from botformer.training.evaluation_loop import evaluate

    model, model_config = loaded
    assert isinstance(model, Detector)
    categories = [(number, name) for number, name in model_config["categories"]]
    with_keypoints = model.kind == "keypoint_rcnn"
    source = open_detection_dataset(given.data, given.split, with_keypoints)
    _demand_categories(categories, source, given.checkpoint)
    if with_keypoints:
        _demand_keypoints(model_config["keypoint_names"], source, given.checkpoint)
    groups = {} if given.by is None else _groups(source, given.by)
    share = dict(rank=accelerator.process_index, world=accelerator.num_processes)
    batch_size = _BATCH_SIZE if given.batch_size is None else given.batch_size
    images = DetectionImages(**model_config["images"])
    batches = detection_evaluation_batches(source, images, batch_size, given.workers, **share)
    task: Any = DetectionTask(model, model_config, categories, set()).to(accelerator.device)
    console = Console(stderr=True, quiet=not accelerator.is_main_process)
    metrics = evaluate(task, track(batches, "evaluating", console=console, transient=True), accelerator)
    skipped = {file: reason for bad in gather_object([batches.bad]) for file, reason in sorted(bad.items())}
    if not accelerator.is_main_process:
        return {"task": "detection"}
    assert isinstance(metrics, CocoEvaluator)
    results = (
        {
            "task": "detection",
            "checkpoint": str(given.checkpoint),
            "weights": str(weights_file(given.checkpoint)),
            "data": given.data,
            "split": given.split,
            "max_detections": metrics.max_detections,
            "threshold_chosen_on": _CHOSEN_HERE,
        }
        | _measured(metrics)
        | _of_groups(metrics, given.by, groups)
        | {
            "skipped": {"images": skipped, "annotations": [problem._asdict() for problem in source.problems]},
        }
    )
    out = given.folder
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(metrics.results()) + "\n", encoding="utf-8")
    (out / "metrics.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw_precision_recall(
        [
            (f"{kind}, IoU {iou}", *metrics.precision_recall(kind, iou), results[kind][f"AP{iou * 100:.0f}"])
            for kind in metrics.kinds
            for iou in (0.5, 0.75)
        ],
        out / "precision_recall.png",
    )
    kind = metrics.kinds[-1]
    draw_best_and_worst(
        source, metrics, kind, results[kind]["best_f1"]["threshold"], images.max_megapixels, out / "best_and_worst.png"
    )
    return results


def print_detection(results: dict[str, Any], out: Path, console: Console) -> None:
    """Numbers that do not exist, COCO's -1, are "-"."""
    kinds = [kind for kind in ("box", "mask", "keypoints") if kind in results]
    console.print(
        f"{results['split']} of {results['data']}: {results['images']:,} images with {results['objects']:,} "
        f"objects, {results['detections']:,} detections",
        markup=False,
    )
    names = [name.replace("100", str(results["max_detections"])) for name in _ON_SCREEN]
    table = _table("", *names)
    for kind in kinds:
        table.add_row(kind, *(_number(_cocos(results[kind], name)) for name in _ON_SCREEN))
    console.print(table)
    headline = results[kinds[-1]]
    known = [row for row in headline["per_class"] if row["AP"] >= 0]
    if len(known) > 1:
        worst = sorted(known, key=lambda row: row["AP"])[:5]
        listed = ", ".join(f"{row['name']} {row['AP']:.3f}" for row in worst)
        console.print(f"lowest {kinds[-1]} AP: {listed}", markup=False)
    console.print(
        "\nFrom the score on that has the best F1 (on these images, which flatters); at each IoU TP / (TP + FP + FN):"
    )
    ious = list(results["box"]["community_ap"])
    table = _table("", "score", "F1", "precision", "recall", *(f"IoU {iou}" for iou in ious))
    for kind in kinds:
        best, shares = results[kind]["best_f1"], results[kind]["community_ap"]
        numbers = (best["threshold"], best["f1"], best["precision"], best["recall"], *shares.values())
        table.add_row(kind, *map(_number, numbers))
    console.print(table)
    for key, groups in results.get("by", {}).items():
        _print_groups(key, groups, kinds, console)
    skipped = results["skipped"]
    for what in ("images", "annotations"):
        if skipped[what]:
            console.print(f"{len(skipped[what])} {what} were left out, wholly or in part; metrics.json lists them")
    files = ("metrics.json", "results.json", "precision_recall.png", "best_and_worst.png")
    console.print(f"{', '.join(files)} are in {out}", markup=False)


def _print_groups(key: str, groups: dict[str, Any], kinds: Sequence[str], console: Console) -> None:
    columns = [(kind, name) for kind in kinds for name in ("AP", "AP50")]
    table = _table(escape(key), "images", "objects", *(f"{kind} {name}" for kind, name in columns))
    for value, group in groups.items():
        numbers = (_number(group[kind][name]) for kind, name in columns)
        table.add_row(escape(value), f"{group['images']:,}", f"{group['objects']:,}", *numbers)
    console.print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(first, overflow="fold")
    for header in others:
        table.add_column(header, justify="right")
    return table


def _cocos(numbers: Mapping[str, Any], name: str) -> float:
    """-1 where COCO has no such number for this kind."""
    return numbers.get(name, numbers.get(_SAME_AS.get(name, ""), -1))


def _number(value: float) -> str:
    return "-" if value == -1 else f"{value:.3f}"


def _measured(metrics: "CocoEvaluator") -> dict[str, Any]:
    """Counts, and for each kind COCO's numbers, those of every class, and what the best threshold gives."""
    measured = _counts(metrics)
    for kind in metrics.kinds:
        best = metrics.best_f1(kind)
        measured[kind] = _numbers(metrics, kind, best.threshold) | {
            "best_f1": best._asdict(),
            "per_class": metrics.per_class(kind),
        }
    return measured


def _of_groups(metrics: "CocoEvaluator", key: str | None, groups: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The same of every group of images, at the thresholds of all of them together."""
    if key is None:
        return {}
    parts = {
        value: metrics.only(image_id for image_id in image_ids if image_id in metrics.images)
        for value, image_ids in groups.items()
    }
    measured = {value: _counts(part) for value, part in parts.items()}
    for kind in metrics.kinds:
        threshold = metrics.best_f1(kind).threshold
        for value, part in parts.items():
            measured[value][kind] = _numbers(part, kind, threshold)
    return {"by": {key: measured}}


def _counts(metrics: "CocoEvaluator") -> dict[str, Any]:
    return {
        "images": len(metrics.images),
        "objects": sum(row["objects"] for row in metrics.per_class("box")),
        "detections": len(metrics.results()),
    }


def _numbers(metrics: "CocoEvaluator", kind: "Kind", threshold: float) -> dict[str, Any]:
    from botformer.detection.evaluation.coco_eval import numbers_of

    numbers = metrics.compute()
    shares = metrics.community_ap(kind, threshold)
    return {name: numbers[f"{kind}_{name}"] for name in numbers_of(kind)} | {
        "community_ap": {f"{iou:g}": share for iou, share in shares.items()}
    }


def _groups(source: "DetectionDataset", key: str) -> dict[str, list[int]]:
    """Value of the key -> ids of the images, in the order of the values. Raises where no image has the key."""
    groups: dict[str, list[int]] = {}
    keys: set[str] = set()
    for index in range(len(source)):
        image = source.image(index)
        keys |= image.more.keys()
        groups.setdefault(str(image.more.get(key, "(none)")), []).append(image.id)
    if key not in keys:
        raise InputError(
            f"--by {key}: no image record of {source.where} has that key with a text or a number; the keys there: "
            f"{', '.join(sorted(keys)) or 'none'}"
        )
    return dict(sorted(groups.items()))


def _demand_categories(known: list[tuple[int, str]], source: "DetectionDataset", checkpoint: Path) -> None:
    there = [(category.id, category.name) for category in source.categories]
    if there != known:
        raise InputError(
            f"{checkpoint} knows {len(known)} categories ({_listed(known, there)}), {source.where} has {len(there)} "
            f"({_listed(there, known)}); ids and names must be the same ones: change the 'categories' of the "
            "annotations (and the category_id of what belongs to them), or evaluate a detector that was trained on them"
        )


def _demand_keypoints(known: Sequence[str], source: "DetectionDataset", checkpoint: Path) -> None:
    if list(source.keypoint_names) != list(known):
        raise InputError(
            f"{checkpoint} finds the key points {', '.join(known)}; {source.where} has "
            f"{', '.join(source.keypoint_names) or 'none'}; they must be the same ones in the same order: change the "
            "annotations, or evaluate a detector that was trained on such key points"
        )


def _listed(categories: list[tuple[int, str]], others: list[tuple[int, str]]) -> str:
    """What the others lack comes first."""
    ordered = sorted(categories, key=lambda category: category in others)
    more = ", ..." if len(ordered) > _LISTED else ""
    return ", ".join(f"{number} {name}" for number, name in ordered[:_LISTED]) + more
