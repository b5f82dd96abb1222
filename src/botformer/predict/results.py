"""What a predictor returns: typed results, and the forms in which other programs take them."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from PIL import Image

from botformer.atomic_write import atomic_file
from botformer.classification.metrics import rounded_probability
from botformer.data.image_inputs import InputImage
from botformer.detection.evaluation.coco_eval import coco_results
from botformer.errors import InputError
from botformer.plots.top5 import Prediction
from botformer.rle import decode

CENTRE = (0.5, 0.5)
LIKELY = 0.5
"""Score from which detections are drawn, unless another is asked for."""

AttentionMaps = list[tuple[str, np.ndarray]]
"""A name and the weights (height, width) of each attention layer."""


class DrawsClassification(Protocol):
    """The network of a classification, which looks at the image again."""

    names: Sequence[str]

    def attention(self, image: InputImage, query: tuple[float, float]) -> AttentionMaps: ...

    def to_plot(self, result: "ClassificationResult", query: tuple[float, float], truth: str | None) -> Prediction: ...

    def draw(
        self, result: "ClassificationResult", query: tuple[float, float], truth: str | None, out: Path | BinaryIO
    ) -> None: ...


class DrawsDetection(Protocol):
    names: Sequence[str]
    category_ids: Sequence[int]

    def attention(self, image: InputImage, box_xyxy: Sequence[float]) -> AttentionMaps: ...

    def draw(self, result: "DetectionResult", chosen: Sequence[int], out: Path | BinaryIO) -> None: ...

    def draw_attention(self, result: "DetectionResult", detection: int, out: Path | BinaryIO) -> None: ...


@dataclass(frozen=True, eq=False)
class ClassificationResult:
    """The classes of one image. `draw` and `attention` read the image again, from where it was given."""

    name: str
    """The file, or "image 3" of what has no name."""
    size_px: tuple[int, int]
    """(width, height), upright."""
    labels: list[str]
    """The most probable classes, at most five; the best first."""
    probabilities: list[float]
    """Theirs, 0 to 1."""
    places: list[int] = field(repr=False)
    """Theirs in `predictor.names`, of which several may have one name."""
    of_classes: np.ndarray = field(repr=False)
    """float32 (K,): the probability of every class, in the order of `predictor.names`."""
    image: InputImage = field(repr=False)
    network: DrawsClassification = field(repr=False)
    error = None
    """As of an image that could not be read, which has a reason here."""

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.labels[0]

    @property
    def probability(self) -> float:
        """Of the most probable class, 0 to 1."""
        return self.probabilities[0]

    @property
    def top5(self) -> list[tuple[str, float]]:
        """As a line of predictions.json has it: rounded to six digits."""
        return [(label, rounded_probability(p)) for label, p in zip(self.labels, self.probabilities, strict=True)]

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """A record per class of `labels`, as COCO writes results, without a box: `category_id` counts from 0.

        `image_id` is what the records have under that name.
        """
        return [
            {"image_id": image_id, "category_id": place, "score": probability}
            for place, probability in zip(self.places, self.probabilities, strict=True)
        ]

    def to_supervision(self) -> Any:
        """`supervision.Classifications` of all classes, in the order of `predictor.names`.

        Raises:
            InputError: supervision is not installed.
        """
        return _package("supervision", "detection").Classifications(
            class_id=np.arange(len(self.of_classes)), confidence=self.of_classes
        )

    def to_dataframe(self) -> Any:
        """A pandas data frame with the columns image, label, probability; a row per class of `labels`.

        Raises:
            InputError: pandas is not installed.
        """
        columns = {"image": [self.name] * len(self.labels), "label": self.labels, "probability": self.probabilities}
        return _package("pandas").DataFrame(columns)

    def attention(self, query: tuple[float, float] = CENTRE) -> AttentionMaps:
        """Where each attention layer looks from one position, heads averaged: names and weights (H, W).

        Args:
            query: (y, x) as fractions of what the network sees of the image.

        Raises:
            InputError: a position outside, or the image cannot be read again.
        """
        if not all(0 <= fraction <= 1 for fraction in query):
            raise InputError(f"query is {query}; expected (y, x) as fractions of the image, from 0 to 1")
        return self.network.attention(self.image, query)

    def to_plot(self, query: tuple[float, float] = CENTRE, truth: str | None = None) -> Prediction:
        """For `plots.top5`: what `draw` draws of the same `query` and `truth`."""
        return self.network.to_plot(self, query, truth)

    def draw(
        self,
        path: str | Path | None = None,
        query: tuple[float, float] = CENTRE,
        truth: str | None = None,
    ) -> Image.Image:
        """The image, its best classes as bars, and the attention from `query`; as PNG in `path` if that is given.

        Args:
            path: a file; its folder is made.
            query: (y, x) as fractions of what the network sees of the image.
            truth: the name of the right class, which is then shown beside the image.

        Raises:
            InputError: the image cannot be read again.
        """
        return _drawn(lambda out: self.network.draw(self, query, truth, out), path)


@dataclass(frozen=True, eq=False)
class DetectionResult:
    """The objects on one image, best first, in pixels of the upright original."""

    name: str
    """The file, or "image 3" of what has no name."""
    size_px: tuple[int, int]
    """(width, height), upright."""
    boxes_xyxy: np.ndarray
    """float32 (n, 4)."""
    scores: np.ndarray
    """float32 (n,), 0 to 1."""
    labels: np.ndarray
    """int64 (n,), from 1: label 1 is the first of `predictor.names`."""
    names: list[str]
    """The category of each."""
    image: InputImage = field(repr=False)
    network: DrawsDetection = field(repr=False)
    masks: list[dict[str, Any]] | None = field(default=None, repr=False)
    """n masks in COCO's run-length encoding, {"size": [height, width], "counts": str}; None without masks."""
    keypoints: np.ndarray | None = field(default=None, repr=False)
    """float32 (n, K, 3): x, y in pixels, and 1; None without key points."""
    keypoints_scores: np.ndarray | None = field(default=None, repr=False)
    """float32 (n, K)."""
    error = None
    """As of an image that could not be read, which has a reason here."""

    def __len__(self) -> int:
        return len(self.scores)

    def __bool__(self) -> bool:
        """A result is one, also where nothing was found."""
        return True

    def above(self, threshold: float) -> "DetectionResult":
        """The detections that score at least `threshold`."""
        return self._only(np.flatnonzero(self.scores >= threshold))

    def mask(self, detection: int) -> np.ndarray:
        """bool (height, width) of one detection. Raises `InputError` where there are no masks."""
        if self.masks is None:
            raise InputError("this network detects no masks; a mask_rcnn does")
        return decode(self.masks[detection])

    def to_coco(self, image_id: int | str, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO's results: `image_id` as given, `category_id`, `bbox` xywh, `score`, `segmentation` or `keypoints`.

        `category_ids` of the classes, in their order; by default those that the network was trained with.
        """
        found: dict[str, Any] = {
            "boxes": torch.from_numpy(self.boxes_xyxy),
            "labels": torch.from_numpy(self.labels),
            "scores": torch.from_numpy(self.scores),
        }
        if self.masks is not None:
            found["masks"] = self.masks
        if self.keypoints is not None:
            found["keypoints"] = torch.from_numpy(self.keypoints)
        ids = self.network.category_ids if category_ids is None else category_ids
        return coco_results(found, image_id, list(zip(ids, self.network.names, strict=True)))

    def to_supervision(self) -> Any:
        """`supervision.Detections`: `class_id` counts from 0 in `predictor.names`, `data` has "class_name" and, of key
        points, "keypoints" (n, K, 3). Masks stay compressed where supervision can (`CompactMask`).

        Raises:
            InputError: supervision is not installed.
        """
        supervision = _package("supervision", "detection")
        data: dict[str, Any] = {"class_name": np.array(self.names, dtype=str)}
        if self.keypoints is not None:
            data["keypoints"] = self.keypoints
        masks: Any = None
        if self.masks is not None:
            width, height = self.size_px
            compact = getattr(supervision, "CompactMask", None)
            if compact is not None and hasattr(compact, "from_coco_rle"):
                masks = compact.from_coco_rle(self.masks, self.boxes_xyxy, (height, width))
            else:
                masks = np.array([decode(mask) for mask in self.masks]).reshape(-1, height, width)
        return supervision.Detections(
            xyxy=self.boxes_xyxy, mask=masks, confidence=self.scores, class_id=self.labels - 1, data=data
        )

    def to_dataframe(self) -> Any:
        """A pandas data frame with the columns image, label, score, x1, y1, x2, y2 in pixels; a row per detection, and
        with masks area_px.

        Raises:
            InputError: pandas is not installed.
        """
        columns: dict[str, Any] = {"image": [self.name] * len(self), "label": self.names, "score": self.scores}
        columns |= {name: self.boxes_xyxy[:, place] for place, name in enumerate(("x1", "y1", "x2", "y2"))}
        if self.masks is not None:
            columns["area_px"] = [int(decode(mask).sum()) for mask in self.masks]
        return _package("pandas").DataFrame(columns)

    def attention(self, detection: int = 0) -> AttentionMaps:
        """Where each attention layer looks from the centre of a detection, heads averaged.

        Names and weights (h, w) over the image as the network sees it, whole and not in tiles, which add up to 1.

        Raises:
            InputError: there is no such detection, or the image cannot be read again.
        """
        self._check(detection)
        return self.network.attention(self.image, self.boxes_xyxy[detection].tolist())

    def draw(self, path: str | Path | None = None, threshold: float = LIKELY) -> Image.Image:
        """The image with the detections that score at least `threshold`; as PNG in `path` if that is given."""
        chosen = np.flatnonzero(self.scores >= threshold).tolist()
        return _drawn(lambda out: self.network.draw(self, chosen, out), path)

    def draw_attention(self, detection: int = 0, path: str | Path | None = None) -> Image.Image:
        """One detection, and over the image what each attention layer looks at; as PNG in `path` if that is given.

        Raises:
            InputError: there is no such `detection` (from 0, the best), or the image cannot be read again.
        """
        self._check(detection)
        return _drawn(lambda out: self.network.draw_attention(self, detection, out), path)

    def _only(self, chosen: np.ndarray) -> "DetectionResult":
        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[chosen]

        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[chosen],
            scores=self.scores[chosen],
            labels=self.labels[chosen],
            names=[self.names[place] for place in chosen],
            masks=None if self.masks is None else [self.masks[place] for place in chosen],
            keypoints=some(self.keypoints),
            keypoints_scores=some(self.keypoints_scores),
        )

    def _check(self, detection: int) -> None:
        if not 0 <= detection < len(self):
            raise InputError(f"there is no detection {detection} on {self.name}: it has {len(self)}, from 0, the best")


@dataclass(frozen=True)
class Unreadable:
    """An image of many that could not be read. It stands in the place of its result, and is false."""

    name: str
    """The file, or "image 3" of what has no name."""
    error: str
    """Why."""

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"no {name!r}: {self.name} could not be read ({self.error}); look at `result.error` first")


Result = ClassificationResult | DetectionResult


def _drawn(draw: Callable[[BinaryIO], None], path: str | Path | None) -> Image.Image:
    """What `draw` writes, kept in memory and, atomically, in `path`."""
    png = io.BytesIO()
    draw(png)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(Path(path)) as unfinished:
            unfinished.write_bytes(png.getvalue())
    return Image.open(png).convert("RGB")


def _package(name: str, extra: str = "") -> Any:
    """An optional package, imported where it is needed. Raises `InputError` that says how to install it."""
    try:
        return import_module(name)
    except ImportError:
        install = f"'botformer[{extra}]'" if extra else name
        raise InputError(f"this needs the package {name}: pip install {install}") from None
