"""What evaluation measures: exact over any number of processes, because only counts, predictions and each image's loss
travel."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

_DIGITS = 6
"""Of a probability in a file."""


class ImagePrediction(TypedDict):
    """A record of a classifier's predictions.json."""

    file_name: str
    label: NotRequired[str]
    """The true class, where it is known."""
    top5: list[tuple[str, float]]
    """The most probable classes, at most five, and their probabilities; the best first."""


def top5(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K) -> the best classes (B, 5), int64, and their probabilities (B, 5), best first; fewer for K < 5."""
    best = logits.topk(min(5, logits.shape[1])).indices
    return best, logits.softmax(1).gather(1, best)


def named_top5(classes: Tensor, probabilities: Tensor, class_names: Sequence[str]) -> list[tuple[str, float]]:
    """What `top5` found on one image, as `ImagePrediction` holds it."""
    indices: list[int] = classes.tolist()
    return [
        (class_names[index], rounded_probability(probability))
        for index, probability in zip(indices, probabilities.tolist(), strict=True)
    ]


def rounded_probability(probability: float) -> float:
    """As files hold it."""
    return round(float(probability), _DIGITS)


class Confusion(NamedTuple):
    """The cells of a confusion matrix that are not 0, in its order. Of 10,000 classes the whole one takes 800 MB."""

    truth: Tensor
    """int64 (cells,)."""
    prediction: Tensor
    """int64 (cells,)."""
    images: Tensor
    """int64 (cells,)."""


class Accuracy:
    """Top-1, top-5, loss, the confusion matrix and the predictions of a classifier."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.in_top5 = 0
        self._files: list[str] = []
        self._batches: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        """Labels (B,), classes and probabilities (B, 5), losses (B,) of the files."""

    def update(self, predictions: Tensor, batch: Mapping[str, Any]) -> None:
        """`predictions` are logits (B, num_classes); `batch["labels"]` (B,) int64; `batch["files"]` B names."""
        logits, labels = predictions.float(), batch["labels"]
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        best, probabilities = top5(logits)
        self.in_top5 += int((best == labels[:, None]).any(1).sum())
        self._files += batch["files"]
        self._batches.append((labels.cpu(), best.cpu(), probabilities.cpu(), losses.cpu()))

    def state(self) -> dict[str, Any]:
        tables = tuple(
            map(torch.cat, zip(*self._batches, strict=True))
        )  # one tensor each: many small ones travel slowly
        return {
            "in_top5": self.in_top5,
            "files": self._files,
            "batches": [tables] if tables else [],
        }

    def merge(self, states: list[dict[str, Any]]) -> None:
        for state in states:
            self.in_top5 += state["in_top5"]
            self._files += state["files"]
            self._batches += state["batches"]

    def compute(self) -> dict[str, float]:
        """Fractions between 0 and 1; top5 only where there are more than five classes; `images` counted.

        `balanced_accuracy` is top-1 where every class counts alike, however many images it has.
        """
        images = len(self._files)
        metrics = {
            "top1": sum(int((labels == best[:, 0]).sum()) for labels, best, _, _ in self._batches) / max(images, 1),
            "balanced_accuracy": float(self.of_classes().nanmean().nan_to_num()),  # 0 without images
        }
        if self.num_classes > 5:
            metrics["top5"] = self.in_top5 / max(images, 1)
        # fsum rounds once, whatever the order: the sum does not depend on the number of processes.
        loss_sum = math.fsum(loss for _, _, _, losses in self._batches for loss in losses.tolist())
        return metrics | {"loss": loss_sum / max(images, 1), "images": images}

    def of_classes(self) -> Tensor:
        """float64 (K,): the fraction of each class's images that is right; nan of a class without images."""
        truth, prediction, counts = self.confusion()
        images = torch.bincount(truth, counts.double(), self.num_classes)
        return torch.bincount(truth, counts.double() * (truth == prediction), self.num_classes) / images

    def confusion(self) -> Confusion:
        """How many images of each class were taken for which."""
        cells = [labels * self.num_classes + best[:, 0] for labels, best, _, _ in self._batches]
        found, images = torch.cat([torch.empty(0, dtype=torch.int64), *cells]).unique(return_counts=True)
        return Confusion(found // self.num_classes, found % self.num_classes, images)

    def predictions(self, class_names: Sequence[str]) -> list[ImagePrediction]:
        """One record per image that was counted, process by process in the order of the batches."""
        rows = (row for tables in self._batches for row in zip(*tables, strict=True))
        return [
            {
                "file_name": file,
                "label": class_names[int(label)],
                "top5": named_top5(classes, probabilities, class_names),
            }
            for file, (label, classes, probabilities, _) in zip(self._files, rows, strict=True)
        ]
