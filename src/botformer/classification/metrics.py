"""What evaluation counts: exact over any number of processes, because only counts travel."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Accuracy:
    """Top-1, top-5, loss and the confusion matrix (truth in rows) of a classifier."""

    def __init__(self, num_classes: int) -> None:
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.in_top5 = 0
        self.loss_sum = 0.0

    def update(self, predictions: Tensor, batch: Mapping[str, Any]) -> None:
        """`predictions` are logits (B, num_classes); `batch["labels"]` (B,) int64."""
        logits, labels = predictions.float(), batch["labels"]
        self.loss_sum += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        best = logits.topk(min(5, logits.shape[1])).indices
        self.in_top5 += int((best == labels[:, None]).any(1).sum())
        num_classes = len(self.confusion)
        cells = labels * num_classes + best[:, 0]
        self.confusion += cells.cpu().bincount(minlength=num_classes**2).reshape(num_classes, num_classes)

    def state(self) -> dict[str, Any]:
        return {"confusion": self.confusion, "in_top5": self.in_top5, "loss_sum": self.loss_sum}

    def merge(self, states: list[dict[str, Any]]) -> None:
        for state in states:
            self.confusion += state["confusion"]
            self.in_top5 += state["in_top5"]
            self.loss_sum += state["loss_sum"]

    def compute(self) -> dict[str, float]:
        """Shares between 0 and 1; top5 only where there are more than five classes; `images` counted."""
        images = int(self.confusion.sum())
        metrics = {"top1": float(self.confusion.diagonal().sum()) / max(images, 1)}
        if len(self.confusion) > 5:
            metrics["top5"] = self.in_top5 / max(images, 1)
        return metrics | {"loss": self.loss_sum / max(images, 1), "images": images}
