"""What a trained network does on validation images, drawn: best, worst, surely wrong, and where it looks."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.resnet import Classifier
from botformer.classification.metrics import ImagePrediction
from botformer.create.from_checkpoint import Loaded
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.image_io import BadImage
from botformer.data.loader import evenly_spread
from botformer.plots.html_report import Card
from botformer.plots.top5 import draw_gallery
from botformer.predict.predictor import Predictor, predictor
from botformer.predict.results import ClassificationResult, DetectionResult, Result
from botformer.report.disagreements import wrong_images
from botformer.report.finding import Example, ImageRef
from botformer.report.opened_data import Split
from botformer.report.thumbnails import cards

_EACH = 8
_TIMED = 6
"""Images that the network is timed on, besides the first, which takes longer."""


class Surest(NamedTuple):
    """Validation images of a classifier."""

    right: list[Card]
    """Of all classes, the surest of each first."""
    wrong: list[Card]
    """The surest first."""
    unsure: list[Card]
    """Those whose best class is the least probable."""


def surest(split: Split, predictions: Sequence[ImagePrediction]) -> Surest:
    """Empty lists where the predictions are of other images."""
    places = {split.image_name(index): index for index in range(len(split))}
    known = [record for record in predictions if record["file_name"] in places and "label" in record]
    by_sureness = sorted(known, key=lambda record: (-record["top5"][0][1], record["file_name"]))
    right = [record for record in by_sureness if record["top5"][0][0] == record.get("label")]

    def made(records: Sequence[ImagePrediction]) -> list[Card]:
        examples = [Example([ImageRef(split.name, places[record["file_name"]])], _words(record)) for record in records]
        return [
            replace(card, tone="good" if record["top5"][0][0] == record.get("label") else "bad")
            for card, record in zip(cards([split], examples), records, strict=True)
        ]

    wrong = wrong_images(split, predictions)[:_EACH]
    of_name = {record["file_name"]: record for record in known}
    return Surest(
        made(_in_turns(right)[:_EACH]),
        made([of_name[each.name] for each in wrong]),
        made(by_sureness[::-1][:_EACH]),
    )


def _in_turns(records: Sequence[ImagePrediction]) -> list[ImagePrediction]:
    """The first of each class, then the second of each, ..."""
    of_class: dict[str, list[ImagePrediction]] = {}
    for record in records:
        of_class.setdefault(record.get("label", ""), []).append(record)
    longest = max(map(len, of_class.values()), default=0)
    return [group[turn] for turn in range(longest) for group in of_class.values() if turn < len(group)]


def _words(record: ImagePrediction) -> str:
    (best, probability), label = record["top5"][0], record.get("label")
    return f"{best} {probability:.0%}" + ("" if best == label else f", truth {label}")


class Attention(NamedTuple):
    """Where a network looks, and how long it takes for an image."""

    drawing: Path | None
    """None for a network without attention layers, and where nothing was detected."""
    seconds_per_image: float | None
    """From the file to the prediction, one image at a time."""


def attend(loaded: Loaded, split: Split, predictions: Sequence[Any], folder: Path, device: str) -> Attention:
    """Draw the attention on a few validation images into the folder, and time the network on them."""
    of_kind = _classifier_attention if isinstance(loaded.model, Classifier) else _detector_attention
    return of_kind(loaded, split, predictions, folder, device)


def _classifier_attention(
    loaded: Loaded, split: Split, predictions: Sequence[Any], folder: Path, device: str
) -> Attention:
    classify = predictor(loaded, device=device)
    wrong = [each.index for each in wrong_images(split, predictions)][:2]
    chosen = list(dict.fromkeys([*evenly_spread(len(split), _TIMED), *wrong]))[:_EACH]
    drawn, seconds = [], []
    for index in chosen:
        found, took_s = _timed(classify, split, index)
        if isinstance(found, ClassificationResult):
            seconds.append(took_s)
            drawn.append(found.to_plot(truth=split.label(index)))
    drawing = folder / "attention.png"
    if not drawn or not _attends(loaded):
        return Attention(None, _typical(seconds))
    draw_gallery(drawn, drawing)
    return Attention(drawing, _typical(seconds))


def _detector_attention(
    loaded: Loaded, split: Split, predictions: Sequence[Any], folder: Path, device: str
) -> Attention:
    detect = predictor(loaded, device=device)
    assert isinstance(split.dataset, DetectionDataset)
    ids = {split.dataset.image(index).id: index for index in range(len(split))}
    best = max(predictions, key=lambda result: result["score"], default=None)
    first = [] if best is None or best["image_id"] not in ids else [ids[best["image_id"]]]
    seconds: list[float] = []
    drawing = None
    for index in list(dict.fromkeys([*first, *evenly_spread(len(split), _TIMED)]))[: _TIMED // 2]:
        found, took_s = _timed(detect, split, index)
        if not isinstance(found, DetectionResult):
            continue
        seconds.append(took_s)
        if drawing is None and len(found) and _attends(loaded):
            drawing = folder / "attention.png"
            found.draw_attention(0, drawing)
    return Attention(drawing, _typical(seconds))


def _timed(predict: Predictor, split: Split, index: int) -> tuple[Result | None, float]:
    """What is predicted on an image, None where it cannot be read, and the seconds that it took."""
    begin = time.perf_counter()
    try:
        with split.open(index) as file:
            data = file.read()
        found = predict(data)
    except (BadImage, OSError):
        found = None
    return found, time.perf_counter() - begin


def _attends(loaded: Loaded) -> bool:
    return any(isinstance(module, MHSA2d) for module in loaded.model.modules())


def _typical(seconds: Sequence[float]) -> float | None:
    """The median without the first, which warms the machine up."""
    return median(seconds[1:] or seconds) if seconds else None
