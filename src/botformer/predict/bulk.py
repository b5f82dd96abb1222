"""Many images -> predictions.jsonl as it goes, drawings, and at the end predictions.json and images.json.

Memory holds the names of the files, a few batches of images, and nothing of what is done.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import nn

from botformer.atomic_write import atomic_file
from botformer.data.detection.coco_writer import coco_layout
from botformer.data.detection.keypoints import NO_KEYPOINTS
from botformer.data.detection.object_sizes import say_small_objects
from botformer.data.image_inputs import Damaged, NamedBytes
from botformer.errors import InputError
from botformer.predict.coco_ids import IdAndSize, image_ids
from botformer.predict.detector import DetectorNetwork
from botformer.predict.files import DrawingNames
from botformer.predict.prediction_log import LINES, UNFINISHED, PredictionLog, json_text
from botformer.predict.predictor import Predictor
from botformer.predict.results import CENTRE, LIKELY, ClassificationResult, DetectionResult, Unreadable
from botformer.predict.tar_members import is_tar, tar_images
from botformer.text import printable

PREDICTIONS, IMAGES = "predictions.json", "images.json"
_OF_IMAGE = ("id", "file_name", "width", "height", "drawing")
_KEPT = 100
"""Records, and reasons of bad files, that are kept for the screen."""
_TAR_IMAGE_BYTES = 1e5
"""About, to know how much of the work a tar is."""


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


class _Item(NamedTuple):
    source: Path | NamedBytes | Damaged
    done: float
    """The fraction of all that is done with it."""

    @property
    def name(self) -> str:
        return self.source.as_posix() if isinstance(self.source, Path) else self.source.name


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    out: Path,
    options: BulkOptions,
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> BulkSummary:
    """Predict every image of `files`, among which tars of images may be, into the folder `out`.

    predictions.jsonl has a line per image as soon as it is predicted; a run that was stopped there goes on after its
    last whole line. At the end predictions.json (a detector's as COCO's results) and images.json are made of it. A file
    that cannot be read is a line with its reason.

    `on_progress` is called with the fraction of the work that is done.

    Raises:
        InputError: options that do not fit the network or the files, or `out` has a stopped run of other options.
    """
    known, category_ids = _known(predictor, files, out, options)
    out.mkdir(parents=True, exist_ok=True)
    log = PredictionLog(out, _began_with(predictor, options))
    try:
        summary, drawings = BulkSummary(category_ids), DrawingNames(files, out)
        items = _after_earlier(_items(files), log, out, summary, drawings)
        waiting: deque[_Item] = deque()
        done, reached = 0, 0.0

        def sources() -> Iterator[Any]:
            for item in items:
                waiting.append(item)
                yield item.source

        def show(images: float) -> None:  # within an image in tiles
            if waiting:
                on_progress(reached + min(images - done, 1.0) * (waiting[0].done - reached))

        for result in predictor.stream(sources(), show):
            item = waiting.popleft()
            number = summary.images + 1
            expected = known[number - 1] if known else IdAndSize(number, None)
            record = _record(result, expected, category_ids)
            if (
                not isinstance(result, Unreadable)
                and "error" not in record
                and (options.draw is None or summary.drawn < options.draw)
            ):
                _draw(result, record, drawings, out, options)
            log.add(record)
            summary.count(record)
            done, reached = done + 1, item.done
            on_progress(reached)
        _write_json_files(log, predictor, category_ids, out)
        log.finish()
        return summary
    finally:
        log.close()


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the weights."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _known(
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


def _began_with(predictor: Predictor, options: BulkOptions) -> dict[str, Any]:
    """What must be the same when a stopped run goes on."""
    network = predictor.network
    return {
        "network": fingerprint(predictor.model),
        "model_config": predictor.model_config,
        "tile": network.tile if isinstance(network, DetectorNetwork) else 0,
        "tta": "flip" if network.flip else "none",
        "max_megapixels": predictor.max_megapixels,
        "annotations": options.annotations and str(options.annotations.absolute()),
    } | {name: value for name, value in asdict(options).items() if name != "annotations"}


def _items(files: Sequence[Path]) -> Iterator[_Item]:
    weights = [max(1.0, file.stat().st_size / _TAR_IMAGE_BYTES) if is_tar(file.name) and file.is_file() else 1.0
               for file in files]  # fmt: skip
    total, before = sum(weights), 0.0
    for file, weight in zip(files, weights, strict=True):
        if is_tar(file.name):
            for member in tar_images(file):
                yield _Item(member.image, (before + weight * member.fraction) / total)
        else:
            yield _Item(file, (before + weight) / total)
        before += weight


def _after_earlier(
    items: Iterator[_Item], log: PredictionLog, out: Path, summary: BulkSummary, drawings: DrawingNames
) -> Iterator[_Item]:
    """What is left once the earlier lines are counted, each of which must be of the image that is in its place now."""
    item = next(items, None)
    for record in log.earlier():
        if item is None or item.name != record["file_name"]:
            raise InputError(
                f"{out / LINES} is of a run that was stopped, and its image {summary.images + 1} is "
                f"{printable(record['file_name'])}, now it is {printable(item.name) if item else 'none'}; name the "
                f"same images to go on, name another --out, or remove {out / UNFINISHED} to begin anew"
            )
        others = {each["category_id"] for each in record.get("detections", ())} - set(summary.category_ids)
        if others:
            raise InputError(
                f"{out / LINES} has objects of category {min(others)}, which the network does not know; remove "
                f"{out / UNFINISHED} to begin anew"
            )
        for kind in ("drawing", "attention"):
            if record.get(kind) is not None:
                drawings.take(out / record[kind])
        summary.count(record)
        item = next(items, None)
    summary.earlier = summary.images
    return items if item is None else chain([item], items)


def _record(
    result: ClassificationResult | DetectionResult | Unreadable, expected: IdAndSize, category_ids: Sequence[int]
) -> dict[str, Any]:
    """The line of an image."""
    record: dict[str, Any] = {"id": expected.id, "file_name": result.name}
    if isinstance(result, Unreadable):
        return record | {"error": result.error}
    width, height = result.size_px
    if expected.size_px is not None and result.size_px != expected.size_px:  # the annotated boxes would not fit
        known_width, known_height = expected.size_px
        reason = f"is {width}x{height} pixels upright, its record (image id {expected.id}) says"
        return record | {"error": f"{reason} {known_width}x{known_height}"}
    record |= {"width": width, "height": height, "drawing": None}
    if isinstance(result, ClassificationResult):
        return record | {"top5": result.top5}
    return record | {"detections": result.to_coco(expected.id, category_ids)}


def _draw(
    result: ClassificationResult | DetectionResult,
    record: dict[str, Any],
    drawings: DrawingNames,
    out: Path,
    options: BulkOptions,
) -> None:
    """Draw, and note in the record how the drawings are called."""
    drawing = drawings.new(out, result.name, "prediction")
    if isinstance(result, ClassificationResult):
        result.network.draw(result, options.query, None, drawing)
    else:
        chosen = (result.scores >= options.threshold).nonzero()[0].tolist()
        result.network.draw(result, chosen, drawing)
        if options.attention and options.detection < len(result):
            of_attention = drawings.new(out, result.name, "attention")
            result.network.draw_attention(result, options.detection, of_attention)
            record["attention"] = of_attention.name
    record["drawing"] = drawing.name


def _write_json_files(log: PredictionLog, predictor: Predictor, category_ids: Sequence[int], out: Path) -> None:
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
