"""What evaluation measures: exact over any number of processes, because only counts and predictions travel."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

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
        (class_names[index], round(float(probability), _DIGITS))
        for index, probability in zip(indices, probabilities.tolist(), strict=True)
    ]


class Accuracy:
    """Top-1, top-5, loss, the confusion matrix (truth in rows) and the predictions of a classifier."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.in_top5 = 0
        self.loss_sum = 0.0
        self._files: list[str] = []
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []
        """Labels (B,), classes and probabilities (B, 5) of the files."""

    def update(self, predictions: Tensor, batch: Mapping[str, Any]) -> None:
        """`predictions` are logits (B, num_classes); `batch["labels"]` (B,) int64; `batch["files"]` B names."""
        logits, labels = predictions.float(), batch["labels"]
        self.loss_sum += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        best, probabilities = top5(logits)
        self.in_top5 += int((best == labels[:, None]).any(1).sum())
        num_classes = len(self.confusion)
        cells = labels * num_classes + best[:, 0]
        self.confusion += cells.cpu().bincount(minlength=num_classes**2).reshape(num_classes, num_classes)
        self._files += batch["files"]
        self._batches.append((labels.cpu(), best.cpu(), probabilities.cpu()))

    def state(self) -> dict[str, Any]:
        tables = tuple(
            map(torch.cat, zip(*self._batches, strict=True))
        )  # one tensor each: many small ones travel slowly
        return {
            "confusion": self.confusion,
            "in_top5": self.in_top5,
            "loss_sum": self.loss_sum,
            "files": self._files,
            "batches": [tables] if tables else [],
        }

    def merge(self, states: list[dict[str, Any]]) -> None:
        for state in states:
            self.confusion += state["confusion"]
            self.in_top5 += state["in_top5"]
            self.loss_sum += state["loss_sum"]
            self._files += state["files"]
            self._batches += state["batches"]

    def compute(self) -> dict[str, float]:
        """Fractions between 0 and 1; top5 only where there are more than five classes; `images` counted."""
        images = int(self.confusion.sum())
        metrics = {"top1": float(self.confusion.diagonal().sum()) / max(images, 1)}
        if len(self.confusion) > 5:
            metrics["top5"] = self.in_top5 / max(images, 1)
        return metrics | {"loss": self.loss_sum / max(images, 1), "images": images}

    def predictions(self, class_names: Sequence[str]) -> list[ImagePrediction]:
        """One record per image that was counted, process by process in the order of the batches."""
        rows = (row for tables in self._batches for row in zip(*tables, strict=True))
        return [
            {
                "file_name": file,
                "label": class_names[int(label)],
                "top5": named_top5(classes, probabilities, class_names),
            }
            for file, (label, classes, probabilities) in zip(self._files, rows, strict=True)
        ]
