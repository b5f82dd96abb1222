"""Where a trained network is sure and the label says something else: wrong labels stand at the top of this list.

Of images that it was trained on a network may have learnt the wrong labels, so it contradicts fewer of them there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from botformer.classification.metrics import ImagePrediction
from botformer.data.detection.dataset import Annotation, DetectionDataset, ImageRecord
from botformer.report.finding import Example, Finding, ImageRef
from botformer.report.image_findings import listed
from botformer.report.label_findings import overlaps
from botformer.report.opened_data import Split
from botformer.text import printable

_SURE = 0.8
"""Least probability, or score, that counts as sure."""
_SUSPECTED = 0.1
"""Least score of a detection that covers an annotation."""
_COVERS = 0.3
"""IoU from which on a detection and an annotation may mean the same object."""
_SAME = 0.6
"""IoU from which on they do."""
EXAMPLES = 24


@dataclass(frozen=True)
class Wrong:
    """An image that a classifier takes for another class than its own."""

    index: int
    name: str
    label: str
    predicted: str
    probability: float
    of_label: float
    """Probability of its own class; 0 where it is not among the five best."""

    @property
    def words(self) -> str:
        return f"{self.label}? {self.predicted} {self.probability:.0%}"


def wrong_images(split: Split, predictions: Sequence[ImagePrediction]) -> list[Wrong]:
    """The surest first: by how much more probable the other class is."""
    places = {split.image_name(index): index for index in range(len(split))}
    wrong = []
    for record in predictions:
        index, (best, probability) = places.get(record["file_name"]), record["top5"][0]
        label = record.get("label")
        if index is not None and label is not None and best != label:
            of_label = next((p for name, p in record["top5"] if name == label), 0.0)
            wrong.append(Wrong(index, record["file_name"], label, best, probability, of_label))
    return sorted(wrong, key=lambda each: (each.of_label - each.probability, each.name))


def classifier_disagreements(split: Split, predictions: Sequence[ImagePrediction]) -> list[Finding]:
    """At most one: the images of which the network is sure that they are of another class."""
    wrong = [each for each in wrong_images(split, predictions) if each.probability >= _SURE]
    if not wrong:
        return []
    return [
        Finding(
            "warning",
            f"{len(wrong):,} of {len(predictions):,} images may be in the wrong class: the network gives another one "
            f"{_SURE:.0%} or more",
            split.name,
            len(wrong),
            "Look at them, the surest first. Move those that are wrong to their class; those that are right are what "
            "the network has yet to learn.",
            listed=listed([f"{printable(each.name)}: {each.words}" for each in wrong]),
            examples=[
                Example([ImageRef(split.name, each.index)], f"{printable(each.name)}: {each.words}")
                for each in wrong[:EXAMPLES]
            ],
        )
    ]


@dataclass(frozen=True)
class _Case:
    rank: float
    """The higher, the worse."""
    index: int
    file: str
    words: str
    annotated: tuple[float, ...] | None
    detected: tuple[float, ...] | None


def detector_disagreements(
    split: Split, results: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]
) -> list[Finding]:
    """Objects found that nobody annotated, annotations that nothing covers, and objects of which the network is sure
    that they are of another class.

    `results` and `metrics` are what predictions.json and metrics.json of an evaluation hold. Images that it left out
    are left out.
    """
    assert isinstance(split.dataset, DetectionDataset)
    of_image = defaultdict(list)
    for result in results:
        of_image[result["image_id"]].append(result)
    ids = [category.id for category in split.dataset.categories]
    # The network may know categories that the data lack.
    names = {row["id"]: row["name"] for row in metrics["box"]["per_class"]}
    names |= {category.id: category.name for category in split.dataset.categories}
    kinds: dict[str, list[_Case]] = {"extra": [], "missed": [], "other": []}
    for index in range(len(split)):
        record = split.dataset.image(index)
        if record.file in metrics["skipped"]["images"]:
            continue
        for kind, case in _cases(index, record, of_image[record.id], ids, names):
            kinds[kind].append(case)
    return [
        _finding(split, kinds[kind], what, fix)
        for kind, what, fix in (
            (
                "extra",
                f"objects detected with a score of {_SURE:g} or more where nothing is annotated",
                "Annotate those that are objects: as they are, the network is told that they are background.",
            ),
            (
                "other",
                f"objects whose class the network is sure (score {_SURE:g} or more) is another",
                "Correct the class of those that are wrong.",
            ),
            (
                "missed",
                "annotated objects that no detection covers, the largest first",
                "Delete those where there is nothing, and draw anew those whose box does not fit; the others are what "
                "the network has yet to learn.",
            ),
        )
        if kinds[kind]
    ]


def _cases(
    index: int,
    record: ImageRecord,
    results: Sequence[Mapping[str, Any]],
    ids: Sequence[int],
    names: Mapping[int, str],
) -> Iterator[tuple[str, _Case]]:
    found = sorted(results, key=lambda result: -result["score"])
    boxes = np.array([_xyxy(result["bbox"]) for result in found]).reshape(-1, 4)
    scores = np.array([result["score"] for result in found])
    found_ids = np.array([result["category_id"] for result in found], dtype=np.int64)
    annotations = record.annotations
    annotated = np.array([each.box_xyxy for each in annotations], dtype=np.float64).reshape(-1, 4)
    crowd = np.array([each.crowd for each in annotations], dtype=bool)
    iou = overlaps(boxes, annotated)
    inside = _inside(boxes, annotated[crowd])
    for place in np.flatnonzero(scores >= _SURE):
        if iou[place].max(initial=0) < _COVERS and inside[place] < _COVERS:
            name, box = names[int(found_ids[place])], tuple(boxes[place].tolist())
            score = float(scores[place])
            yield "extra", _Case(score, index, record.file, f"{name} {score:.2f}, not annotated", None, box)
    for place, annotation in enumerate(annotations):
        if annotation.crowd:
            continue
        own_id = ids[annotation.label - 1]
        name = names[own_id]
        covering = (iou[:, place] >= _COVERS) & (scores >= _SUSPECTED)
        if not covering.any():
            yield "missed", _missed(index, record, annotation, name)
            continue
        same = np.flatnonzero((iou[:, place] >= _SAME) & (scores >= _SUSPECTED))
        if not len(same):
            continue
        best = int(same[0])
        as_labelled = scores[same][found_ids[same] == own_id].max(initial=0.0)
        if found_ids[best] != own_id and scores[best] >= _SURE and as_labelled < 0.5 * scores[best]:
            words = f"{name}? {names[int(found_ids[best])]} {scores[best]:.2f}"
            yield (
                "other",
                _Case(float(scores[best] - as_labelled), index, record.file, words, annotation.box_xyxy, None),
            )


def _missed(index: int, record: ImageRecord, annotation: Annotation, name: str) -> _Case:
    x1, y1, x2, y2 = annotation.box_xyxy
    fraction = (x2 - x1) * (y2 - y1) / (record.width * record.height)
    words = f"{name}, {x2 - x1:.0f}x{y2 - y1:.0f} px, not found"
    return _Case(fraction, index, record.file, words, annotation.box_xyxy, None)


def _inside(boxes: np.ndarray, crowds: np.ndarray) -> np.ndarray:
    """(n,): the greatest fraction of each box (n, 4) that lies in one of the crowds (m, 4)."""
    low = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 1e-9, None).prod(1)
    return (np.clip(high - low, 0, None).prod(2) / areas[:, None]).max(1, initial=0.0)


def _finding(split: Split, cases: Sequence[_Case], what: str, fix: str) -> Finding:
    worst = sorted(cases, key=lambda case: (-case.rank, case.file))
    return Finding(
        "warning",
        f"{len(cases):,} {what}",
        split.name,
        len(cases),
        fix,
        listed=listed([f"{printable(case.file)}: {case.words}" for case in worst]),
        examples=[
            Example(
                [ImageRef(split.name, case.index, _boxes(case.annotated), _boxes(case.detected))],
                f"{printable(case.file)}: {case.words}",
            )
            for case in worst[:EXAMPLES]
        ],
    )


def _boxes(box: tuple[float, ...] | None) -> tuple[tuple[float, float, float, float], ...]:
    return () if box is None else ((box[0], box[1], box[2], box[3]),)


def _xyxy(box_xywh: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box_xywh
    return x, y, x + width, y + height
