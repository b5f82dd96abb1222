"""Many images -> predictions.jsonl as it goes, drawings, and at the end predictions.json and images.json.

Memory holds the names of the files, a few batches of images, and nothing of what is done.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from botformer.data.image_inputs import Damaged, NamedBytes
from botformer.errors import InputError
from botformer.predict.coco_ids import IdAndSize
from botformer.predict.files import DrawingNames
from botformer.predict.prediction_log import LINES, UNFINISHED, PredictionLog, check_replaced
from botformer.predict.prediction_records import (
    BulkOptions,
    BulkSummary,
    began_with,
    known_images,
    record_of,
    write_json_files,
)
from botformer.predict.predictor import Predictor
from botformer.predict.results import ClassificationResult, DetectionResult, Unreadable
from botformer.predict.tar_members import TAR_IMAGE_BYTES, is_tar, tar_images
from botformer.text import printable


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
        InputError: options that do not fit the network or the files, `out` has a stopped run of other
            options, or finished predictions of other images.
    """
    known, category_ids = known_images(predictor, files, out, options)
    check_replaced(out, files)
    out.mkdir(parents=True, exist_ok=True)
    log = PredictionLog(out, began_with(predictor, options, "plain"))
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
            record = record_of(result, expected, category_ids)
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
        write_json_files(log, predictor, category_ids, out)
        log.finish()
        return summary
    finally:
        log.close()


def _items(files: Sequence[Path]) -> Iterator[_Item]:
    weights = [max(1.0, file.stat().st_size / TAR_IMAGE_BYTES) if is_tar(file.name) and file.is_file() else 1.0
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
