"""What is said of each of many images, whichever engine predicted it, and the JSON files made of it at the end."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from botformer.atomic_write import atomic_file
from botformer.data.detection.coco_writer import coco_layout
from botformer.data.detection.keypoints import NO_KEYPOINTS
from botformer.data.detection.object_sizes import say_small_objects
from botformer.errors import InputError
from botformer.predict.coco_ids import IdAndSize, image_ids
from botformer.predict.detector import DetectorNetwork
from botformer.predict.prediction_log import IMAGES, LINES, PREDICTIONS, PredictionLog, json_text
from botformer.predict.predictor import Predictor
from botformer.predict.results import CENTRE, LIKELY, ClassificationResult, Result, Unreadable
from botformer.predict.tar_members import is_tar

_OF_IMAGE = ("id", "file_name", "width", "height", "drawing")
_KEPT = 100
"""Records, and reasons of bad files, that are kept for the screen."""


@dataclass(frozen=True)
class BulkOptions:
    """What is drawn, and which ids the images get."""

    threshold: float = LIKELY
    """Detectors: least score of what is drawn."""
    query: tuple[float, float] = CENTRE
    """Classifiers: the position whose attention is drawn, (y, x) as fractions of the image."""
    draw: int | None = 100
    """How many of the images are drawn, the first; None: all."""
    attention: bool = False
    """Detectors: also draw where the attention layers look from one detection."""
    detection: int = 0
    """Which one: 0 is the best."""
    annotations: Path | None = None
    """Detectors: a COCO file that gives the images their ids."""


@dataclass
class BulkSummary:
    """What happened."""

    category_ids: Sequence[int] = ()
    """Of the classes, as the records have them."""
    images: int = 0
    """All that there were."""
    earlier: int = 0
    """Of which an earlier run had done so many."""
    drawn: int = 0
    unreadable: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    """The first records, as in predictions.jsonl."""
    first_unreadable: list[dict[str, Any]] = field(default_factory=list)

    def count(self, record: Mapping[str, Any]) -> None:
        self.images += 1
        bad = "error" in record
        self.unreadable += bad
        self.drawn += record.get("drawing") is not None
        kept = self.first_unreadable if bad else self.first
        if len(kept) < _KEPT:
            # Without the masks, which may be large.
            kept.append({key: [_short(each) for each in value] if key == "detections" else value
                         for key, value in record.items()})  # fmt: skip


def _short(detection: Mapping[str, Any]) -> dict[str, Any]:
    return {key: detection[key] for key in ("category_id", "score")}


def known_images(
    predictor: Predictor, files: Sequence[Path], out: Path, options: BulkOptions
) -> tuple[Sequence[IdAndSize], Sequence[int]]:
    """What an annotation file says of each image, nothing without one; and the ids of the categories."""
    network = predictor.network
    if not isinstance(network, DetectorNetwork):
        return [], range(len(predictor.names))
    if options.attention:
        network.check_attention()
    if options.annotations is None:
        return [], network.category_ids
    if options.annotations.resolve() in [(out / name).resolve() for name in (LINES, PREDICTIONS, IMAGES)]:
        raise InputError(f"{options.annotations} would be overwritten; name another --out")
    tars = [file for file in files if is_tar(file.name)]
    if tars:
        raise InputError(f"--annotations gives files their ids, and {tars[0]} is a tar; unpack it, or leave it out")
    categories = list(zip(network.category_ids, network.names, strict=True))
    ids, categories, annotated = image_ids(files, categories, options.annotations)
    if annotated is not None:
        say_small_objects(annotated, network.side, network.tile)
    return ids, [number for number, _ in categories]


def began_with(predictor: Predictor, options: BulkOptions, engine: str) -> dict[str, Any]:
    """What must be the same when a stopped run goes on."""
    network = predictor.network
    return {
        "engine": engine,
        "network": fingerprint(predictor.model),
        "model_config": predictor.model_config,
        "tile": network.tile if isinstance(network, DetectorNetwork) else 0,
        "tta": "flip" if network.flip else "none",
        "max_megapixels": predictor.max_megapixels,
        "annotations": options.annotations and str(options.annotations.absolute()),
    } | {name: value for name, value in asdict(options).items() if name != "annotations"}


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def record_of(result: Result | Unreadable, expected: IdAndSize, category_ids: Sequence[int]) -> dict[str, Any]:
    """The line of an image."""
    record: dict[str, Any] = {"id": expected.id, "file_name": result.name}
    if isinstance(result, Unreadable):
        return record | {"error": result.error}
    if wrong := wrong_size(result.size_px, expected):
        return record | {"error": wrong}
    width, height = result.size_px
    record |= {"width": width, "height": height, "drawing": None}
    if isinstance(result, ClassificationResult):
        return record | {"top5": result.top5}
    return record | {"detections": result.to_coco(expected.id, category_ids)}


def wrong_size(size_px: tuple[int, int], expected: IdAndSize) -> str | None:
    """Why an image of this (width, height) is not the one that was annotated: the annotated boxes would not fit."""
    if expected.size_px is None or size_px == expected.size_px:
        return None
    (width, height), (known_width, known_height) = size_px, expected.size_px
    return f"is {width}x{height} pixels upright, its record (image id {expected.id}) says {known_width}x{known_height}"


def write_json_files(log: PredictionLog, predictor: Predictor, category_ids: Sequence[int], out: Path) -> None:
    """predictions.json: a detector's COCO results, a classifier's record per image, on one line: there are hundreds of
    thousands on some data sets. images.json: the images, what the ids of the categories mean, and what is missing."""
    network = predictor.network
    layout = network.layout if isinstance(network, DetectorNetwork) else NO_KEYPOINTS
    categories = [
        {"id": number, "name": name} | coco_layout(layout)
        for number, name in zip(category_ids, predictor.names, strict=True)
    ]
    with atomic_file(out / PREDICTIONS) as unfinished, _text(unfinished) as file:
        file.write("[")
        _write_joined(file, map(json_text, _predictions(log.records())), ", ")
        file.write("]\n")
    with atomic_file(out / IMAGES) as unfinished, _text(unfinished) as file:
        file.write('{\n  "images": [\n    ')
        images = ({key: record[key] for key in _OF_IMAGE} for record in log.records() if "error" not in record)
        _write_joined(file, map(json_text, images), ",\n    ")
        file.write('\n  ],\n  "categories": [\n    ')
        _write_joined(file, map(json_text, categories), ",\n    ")
        file.write('\n  ],\n  "unreadable": [\n    ')
        bad = ({"file_name": each["file_name"], "reason": each["error"]} for each in log.records() if "error" in each)
        _write_joined(file, map(json_text, bad), ",\n    ")
        file.write("\n  ]\n}\n")


def _predictions(records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for record in records:
        if "top5" in record:
            yield {"file_name": record["file_name"], "top5": record["top5"]}
        yield from record.get("detections", ())


def _text(path: Path) -> TextIO:
    # As `PredictionLog.add`: bytes of a file's name that are not UTF-8.
    return path.open("w", encoding="utf-8", errors="backslashreplace")


def _write_joined(file: TextIO, parts: Iterable[str], separator: str) -> None:
    for place, part in enumerate(parts):
        file.write(separator + part if place else part)
