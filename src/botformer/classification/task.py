"""The classification task of the training loop: batch -> losses, batch -> logits, logits -> metrics."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.classification.metrics import Accuracy
from botformer.errors import InputError
from botformer.image_normalization import IMAGENET_MEAN, IMAGENET_STD, normalize_bytes


class ClassificationTask(nn.Module):
    """A classifier with its loss.

    Args:
        model: (B, 3, H, W) normalised -> (B, K) logits.
        model_config: what checkpoints store about the model; `model_config["class_names"]` are the K names.
        no_decay: names of the model's parameters without weight decay.
        flip: predict on mirror images too: the class probabilities are the mean of both.
        label_smoothing, mixup, cutmix: as in the recipe; mixup and cutmix are the alphas, 0 is off.
    """

    headline = "top1"
    has_unused_parameters = False
    shown: Sequence[str] = ("top1", "balanced_accuracy", "top5", "loss")

    def __init__(
        self,
        model: nn.Module,
        model_config: dict[str, Any],
        no_decay: set[str],
        *,
        flip: bool = False,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        super().__init__()
        self.model, self.flip = model, flip
        self.num_classes = len(model_config["class_names"])
        self.label_smoothing = label_smoothing
        self._model_config, self._no_decay = model_config, no_decay
        self.mix = None
        if mixup or cutmix:
            from timm.data.mixup import Mixup  # imports much, and most runs mix nothing

            self.mix = Mixup(mixup, cutmix, label_smoothing=label_smoothing, num_classes=self.num_classes)

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """`images` uint8 (B, 3, H, W), `labels` int64 (B,) -> {"loss_class": mean over the batch}."""
        images, labels = self._normalized(batch["images"]), batch["labels"]
        if self.mix is None:
            logits = self.model(images)
            return {"loss_class": F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)}
        if len(images) % 2:
            raise InputError(
                f"mixup and cutmix pair images: the {len(images)} images per process must be an even number"
            )
        images, soft_labels = self.mix(images, labels)
        return {"loss_class": F.cross_entropy(self.model(images).float(), soft_labels)}

    def predict(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits (B, K); with `flip`, the logarithms of the mean probabilities."""
        images = self._normalized(batch["images"])
        logits = self.model(images)
        if not self.flip:
            return logits
        both = torch.stack([logits, self.model(images.flip(-1))]).to(torch.float32)
        return both.log_softmax(-1).logsumexp(0) - math.log(2)

    def _normalized(self, images: Tensor) -> Tensor:
        """By the statistics of the model, where it has any of its own."""
        return normalize_bytes(
            images, getattr(self.model, "mean", IMAGENET_MEAN), getattr(self.model, "std", IMAGENET_STD)
        )

    def evaluator(self) -> Accuracy:
        return Accuracy(self.num_classes)

    def no_weight_decay(self) -> set[str]:
        return {f"model.{name}" for name in self._no_decay}

    def model_config(self) -> dict[str, Any]:
        return self._model_config
