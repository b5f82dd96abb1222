"""Differences between networks with intervals that allow for other validation images and for other seeds.

Networks are compared seed by seed: those of one seed saw the same images in the same order, turned in the same way.
Images: by the paired bootstrap. A metric of a run is a function of how often each validation image counts; a resample
counts those of a random draw with replacement, the same ones for all networks. Seeds: three cannot be drawn from, so
their standard error is that of the seeds' differences, with Student's t for as few as they are. The interval is that of
the sum of both errors (Behrens and Fisher), so it is never narrower than that of the seeds or that of the images alone.
tests/benchmark/test_evidence_statistics.py counts how often it holds the truth.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from evidence_rows import Dataset, Row
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import brentq
from scipy.stats import norm, t

RESAMPLES = 2_000
LEAST_SEEDS = 3
"""With two, intervals hold the truth less often than they should."""
_LEVEL = 0.975  # of 95 % intervals, on each side
_SIZES = {"AP": "all", "APs": "small", "APm": "medium", "APl": "large"}
_IOU_TYPES: dict[str, Literal["segm", "bbox"]] = {"mask": "segm", "box": "bbox"}
_RECALLS = np.linspace(0, 1, 101)


def image_counts(images: int, resamples: int = RESAMPLES) -> np.ndarray:
    """(1 + resamples, images): how often each image counts; once each in the first row, which is the data itself."""
    draws = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.concatenate([np.ones((1, images), dtype=draws.dtype), draws]).astype(np.int32)


class TopOne:
    """Top-1 accuracy of one run."""

    def __init__(self, predictions: Path) -> None:
        records = sorted(json.loads(predictions.read_text("utf-8")), key=lambda record: record["file_name"])
        self.images = [record["file_name"] for record in records]
        self.right = np.array([record["top5"][0][0] == record["label"] for record in records])

    def of(self, metric: str, counts: np.ndarray) -> np.ndarray:
        """`counts` (resamples, images) -> percent (resamples,)."""
        assert metric == "top1"
        return 100 * (counts @ self.right) / counts.sum(1)


class AveragePrecision:
    """COCO's average precision of one run and one category, from matches that are made once per image."""

    def __init__(self, predictions: Path, truth: Path, max_detections: int) -> None:
        self.predictions, self.truth, self.max_detections = predictions, truth, max_detections
        self.images = sorted(image["id"] for image in json.loads(truth.read_text("utf-8"))["images"])
        self._matched: dict[str, dict[str, list[Any]]] = {}

    def of(self, metric: str, counts: np.ndarray) -> np.ndarray:
        """`metric` as mask_AP, box_AP, or of a size, mask_APs; `counts` (resamples, images) -> points (resamples,); nan
        where a resample has no objects of that size."""
        kind, _, number = metric.partition("_")
        if kind not in self._matched:
            self._matched[kind] = self._match(kind)
        images = self._matched[kind][_SIZES[number]]
        objects = np.array([0 if each is None else int((np.array(each["gtIgnore"]) == 0).sum()) for each in images])
        return 100 * _average_precision(counts, objects, *_rank(images))

    def _match(self, kind: str) -> dict[str, list[Any]]:
        """Size -> what pycocotools made of each image; None where it had nothing to do."""
        with redirect_stdout(StringIO()):  # pycocotools reports every step
            truth = COCO(str(self.truth))
            assert len(truth.getCatIds()) == 1, "the objects of these data sets have one category"
            results = json.loads(self.predictions.read_text("utf-8"))
            if kind == "mask":  # with boxes, it would tell small from large by them
                results = [{name: value for name, value in result.items() if name != "bbox"} for result in results]
            evaluation = COCOeval(truth, truth.loadRes(results), _IOU_TYPES[kind])  # pyright: ignore[reportArgumentType]
            evaluation.params.imgIds = self.images
            evaluation.params.maxDets = [1, 10, self.max_detections]
            evaluation.evaluate()
        images = len(self.images)
        return {
            size: evaluation.evalImgs[place * images : (place + 1) * images]
            for place, size in enumerate(evaluation.params.areaRngLbl)
        }


def _rank(images: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All detections from the highest score down: the place of its image (detections,), and for each of COCO's IoUs
    whether it is an object and whether it is none (IoUs, detections); neither where it does not count."""
    found = [(place, each) for place, each in enumerate(images) if each is not None]
    image = np.concatenate([np.full(len(each["dtScores"]), place) for place, each in found])
    scores = np.concatenate([each["dtScores"] for _, each in found])
    matched = np.concatenate([each["dtMatches"] for _, each in found], axis=1) != 0
    counted = np.concatenate([each["dtIgnore"] for _, each in found], axis=1) == 0
    order = np.argsort(-scores, kind="mergesort")
    return image[order], (matched & counted)[:, order], (~matched & counted)[:, order]


def _average_precision(
    counts: np.ndarray, objects: np.ndarray, image: np.ndarray, hit: np.ndarray, miss: np.ndarray
) -> np.ndarray:
    """The mean over IoUs and 101 recalls of the best precision at that recall or beyond, of each resample.

    The best precision is that of a hit: each miss behind it only lowers it. Resamples come one by one, for then all
    fits into the processor's cache.
    """
    counted = [np.flatnonzero(hit[i] | miss[i]) for i in range(len(hit))]
    hits = [np.flatnonzero(hit[i][places]) for i, places in enumerate(counted)]
    values = np.full((len(counts), len(hit)), np.nan)
    total = counts @ objects
    for j in np.flatnonzero(total):
        of_detection = counts[j][image]
        for i, (places, among_them) in enumerate(zip(counted, hits, strict=True)):
            weights = of_detection[places]
            found, right = weights.cumsum()[among_them], weights[among_them].cumsum()
            precision = right / np.maximum(found, 1)  # 0 of 0 before the first image that counts
            best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # nothing reaches the recalls beyond
            values[j, i] = best[np.searchsorted(right / total[j], _RECALLS, side="left")].mean()
    return values.mean(1)


@dataclass(frozen=True)
class Validation:
    """What one training's predictions are worth on the validation images, and on resamples of them."""

    images: str
    """How many, and which, in short: equal for the same images."""
    resampled: Mapping[str, np.ndarray]
    """Metric -> (1 + RESAMPLES,): in points, of the data and of every resample."""

    @property
    def image_count(self) -> int:
        return int(self.images.partition(" ")[0])


def validation(dataset: Dataset, evaluation: Path, truth: Path, metrics: Sequence[str]) -> Validation:
    """`evaluation`: where `botformer evaluate` wrote; `truth`: COCO's annotations of the validation split (a
    classifier's predictions have their labels)."""
    predictions = evaluation / "predictions.json"
    if dataset.metric == "top1":
        scores = TopOne(predictions)
    else:
        most = json.loads((evaluation / "metrics.json").read_text("utf-8"))["max_detections"]
        scores = AveragePrecision(predictions, truth, most)
    which = sha256("\n".join(map(str, scores.images)).encode()).hexdigest()[:16]
    counts = image_counts(len(scores.images))
    return Validation(f"{len(scores.images)} {which}", {metric: scores.of(metric, counts) for metric in metrics})


@dataclass(frozen=True)
class Interval:
    """95 %."""

    low: float
    effect: float
    high: float

    def verdict(self, seeds: int) -> str:
        if self.low > 0:
            return "holds in small"
        return "does not hold" if self.high < 0 else f"cannot be decided with {seeds} seeds"


def measured_effects(row: Row, runs: Mapping[str, Mapping[int, Validation]]) -> list[dict[str, Any]]:
    """One line per effect and metric whose arms have three seeds or more in common. `runs`: arm -> seed -> its
    validation.

    Raises:
        ValueError: they were validated on different images.
    """
    lines = []
    for effect in row.effects:
        seeds = sorted(set.intersection(*(set(runs.get(arm, {})) for arm in effect.arms)))
        if len(seeds) < LEAST_SEEDS:
            continue
        groups = [[runs[arm][seed] for seed in seeds] for arm in effect.arms]
        if len({run.images for group in groups for run in group}) > 1:
            raise ValueError(f"{effect.claim}: its trainings were validated on different images")
        images = groups[0][0].image_count
        signs = [1] * len(effect.plus) + [-1] * len(effect.minus)
        for metric in (effect.dataset.metric, *effect.metrics):
            of_metric = interval([np.stack([run.resampled[metric] for run in group]) for group in groups], signs)
            lines.append(
                {
                    "effect": effect.claim,
                    "metric": metric,
                    "seeds": len(seeds),
                    "images": images,
                    "low": round(of_metric.low, 2),
                    "difference": round(of_metric.effect, 2),
                    "high": round(of_metric.high, 2),
                    "verdict": of_metric.verdict(len(seeds)),
                }
            )
    return lines


def interval(groups: Sequence[np.ndarray], signs: Sequence[int]) -> Interval:
    """Of the sum of the groups' means over seeds, each with its sign. `groups`: (seeds, 1 + resamples) each, the metric
    of the data and of every resample of its images; the same seeds in all, two or more."""
    differences = np.sum([sign * values for values, sign in zip(groups, signs, strict=True)], axis=0)
    of_images = float(np.nanstd(differences[:, 1:].mean(0), ddof=1))
    of_seeds = float(differences[:, 0].std(ddof=1) / np.sqrt(len(differences)))
    half = half_width(of_seeds, len(differences) - 1, of_images)
    effect = float(differences[:, 0].mean())
    return Interval(effect - half, effect, effect + half)


def half_width(of_seeds: float, freedom: int, of_images: float) -> float:
    """Of a 95 % interval: the sum of two errors, `of_seeds` times Student's t and `of_images` times a normal variable,
    is within it."""
    if not of_images:
        return of_seeds * float(t.ppf(_LEVEL, freedom))
    errors = of_seeds * _students_t(freedom)
    most = 2 * (of_images * norm.ppf(_LEVEL) + errors[-1])
    return float(brentq(lambda half: norm.cdf((half - errors) / of_images).mean() - _LEVEL, 0.0, most))


@cache
def _students_t(freedom: int, points: int = 20_000) -> np.ndarray:
    """(points,): equally likely values of Student's t."""
    return t.ppf((np.arange(points) + 0.5) / points, freedom)
