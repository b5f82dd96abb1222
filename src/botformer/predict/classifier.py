"""A classifier in a predictor: images as an evaluation prepares them -> the best classes, and where attention looks."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from botformer.backbone.attention_maps import attention_maps
from botformer.backbone.resnet import Classifier
from botformer.classification.metrics import top5
from botformer.classification.task import ClassificationTask
from botformer.create.tile_and_flip import may_flip
from botformer.data.classification.batches import stack_channels_last
from botformer.data.classification.transforms import evaluation_transform
from botformer.data.image_inputs import InputImage
from botformer.image_normalization import normalize_bytes
from botformer.plots.top5 import Prediction, draw_prediction
from botformer.predict.own_copy import own_copy
from botformer.predict.results import AttentionMaps, ClassificationResult
from botformer.recipes.schema import Images


class Prepared(NamedTuple):
    """An image as the network sees it."""

    image: InputImage
    pixels: Tensor
    """uint8 (3, size, size)."""
    size_px: tuple[int, int]


class ClassifierNetwork:
    """A classifier on its device. It keeps nothing of one call for the next, so threads may share it.

    Args:
        flip: the mean with the prediction on the mirror image, where the network was trained with such.
        compute: gives the context in which the network computes, such as one of mixed precision.
    """

    def __init__(
        self,
        model: Classifier,
        model_config: Mapping[str, Any],
        *,
        flip: bool = False,
        compute: Callable[[], AbstractContextManager[object]] = torch.inference_mode,
    ) -> None:
        images = Images(**model_config["images"])
        self.model = model
        self.names: Sequence[str] = list(model_config["class_names"])
        self.side, self.max_megapixels = images.size, images.max_megapixels
        self._transform = evaluation_transform(images)
        self.flip = flip and may_flip(model_config)
        self._task = ClassificationTask(model, dict(model_config), set(), flip=self.flip)
        self._compute = compute

    def prepare(self, image: InputImage) -> Prepared:
        """Raises `BadImage`."""
        with image.open() as opened:
            return Prepared(image, self._transform(opened), (opened.width, opened.height))

    def run(
        self, prepared: Sequence[Prepared], on_progress: Callable[[float], object] = lambda images: None
    ) -> list[ClassificationResult]:
        """One result each. `on_progress` is for networks that take long for an image."""
        device = next(self.model.parameters()).device
        pixels = stack_channels_last([each.pixels for each in prepared])
        with self._compute():
            logits = self._task.predict({"images": pixels.to(device)}).float()
            best, probabilities = (values.tolist() for values in top5(logits))
            of_classes = logits.softmax(1).cpu().numpy()
        return [
            ClassificationResult(
                name=each.image.name,
                size_px=each.size_px,
                labels=[str(self.names[place]) for place in places],
                probabilities=probability,
                places=places,
                of_classes=row,
                image=each.image,
                network=self,
            )
            for each, places, probability, row in zip(prepared, best, probabilities, of_classes, strict=True)
        ]

    def attention(self, image: InputImage, query: tuple[float, float]) -> AttentionMaps:
        return self._attention(self.prepare(image).pixels, query)

    def to_plot(self, result: ClassificationResult, query: tuple[float, float], truth: str | None = None) -> Prediction:
        """A result with the attention from `query`, (y, x) as fractions of the image, as `plots.top5` draws it."""
        pixels = self.prepare(result.image).pixels
        height, width = pixels.shape[1:]
        return Prediction(
            image=pixels.permute(1, 2, 0).numpy(),
            names=result.labels,
            probabilities=result.probabilities,
            attention=self._attention(pixels, query),
            query_yx=(query[0] * (height - 1), query[1] * (width - 1)),
            truth=truth,
        )

    def draw(
        self, result: ClassificationResult, query: tuple[float, float], truth: str | None, out: Path | BinaryIO
    ) -> None:
        draw_prediction(**vars(self.to_plot(result, query, truth)), out=out)

    def _attention(self, pixels: Tensor, query: tuple[float, float]) -> AttentionMaps:
        """Of pixels (3, size, size) uint8, heads averaged."""
        batch = normalize_bytes(pixels[None].to(next(self.model.parameters()).device), self.model.mean, self.model.std)
        maps = attention_maps(own_copy(self.model), batch, query)
        return [(name, heads[0].mean(0).cpu().numpy()) for name, heads in maps]
