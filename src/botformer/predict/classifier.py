"""What a classifier predicts on images: the best classes, and where its attention looks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from botformer.backbone.attention_maps import attention_maps
from botformer.backbone.resnet import Classifier
from botformer.classification.metrics import ImagePrediction, named_top5, top5
from botformer.data.classification.transforms import evaluation_transform
from botformer.data.image_io import BadImage, EncodedImage
from botformer.image_normalization import normalize_bytes
from botformer.plots.top5 import Prediction, draw_prediction
from botformer.predict.files import Predictions, drawing_files, read_image
from botformer.recipes.schema import Images

CENTRE = (0.5, 0.5)


@dataclass(frozen=True)
class Classification:
    """One image as a classifier saw it, and what it predicted."""

    pixels: Tensor
    """(3, size, size) uint8, resized and cropped as in an evaluation."""
    top5: list[tuple[str, float]]
    """At most five classes and their probabilities, the best first."""


def classify(model: Classifier, model_config: Mapping[str, Any], image: Image.Image | EncodedImage) -> Classification:
    """The best classes of one RGB image, decoded or not, prepared as in an evaluation."""
    pixels = evaluation_transform(Images(**model_config["images"]))(image)
    with torch.inference_mode():
        (classes,), (probabilities,) = top5(model(_batch(model, pixels)).float())
    return Classification(pixels, named_top5(classes, probabilities, model_config["class_names"]))


def attention_of(
    model: Classifier, pixels: Tensor, query: tuple[float, float] = CENTRE
) -> list[tuple[str, np.ndarray]]:
    """Where each attention layer looks from one position, heads averaged: names and weights (H, W).

    Args:
        pixels: (3, size, size) uint8, as in `Classification`.
        query: (y, x) of the position, as fractions of the image.
    """
    maps = attention_maps(model, _batch(model, pixels), query)
    return [(name, heads[0].mean(0).cpu().numpy()) for name, heads in maps]


def to_draw(
    model: Classifier, classification: Classification, query: tuple[float, float] = CENTRE, truth: str | None = None
) -> Prediction:
    """A classification with the attention from `query`, (y, x) as fractions of the image, as `plots.top5` draws it."""
    pixels = classification.pixels
    height, width = pixels.shape[1:]
    return Prediction(
        image=pixels.permute(1, 2, 0).numpy(),
        names=[name for name, _ in classification.top5],
        probabilities=[probability for _, probability in classification.top5],
        attention=attention_of(model, pixels, query),
        query_yx=(query[0] * (height - 1), query[1] * (width - 1)),
        truth=truth,
    )


def predict_files(
    model: Classifier,
    model_config: Mapping[str, Any],
    files: Sequence[Path],
    out: Path,
    query: tuple[float, float] = CENTRE,
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> tuple[list[ImagePrediction], dict[Path, str]]:
    """Classify every file, draw the result, and write predictions.json and images.json; all into the folder `out`.

    Args:
        query: (y, x) of the position whose attention is drawn, as fractions of the image.
        on_progress: called with the fraction of the files that are done.

    Returns:
        The records of predictions.json, and the files that could not be read with the reason.
    """
    max_megapixels = Images(**model_config["images"]).max_megapixels
    out.mkdir(parents=True, exist_ok=True)
    records: list[ImagePrediction] = []
    predictions = Predictions(list(enumerate(model_config["class_names"])))
    for number, (file, drawing) in enumerate(zip(files, drawing_files(files, out, "prediction"), strict=True)):
        on_progress(number / len(files))
        try:
            image, encoded = read_image(file, max_megapixels)
        except BadImage as error:
            predictions.unreadable[file] = error.reason
            continue
        classification = classify(model, model_config, encoded)
        draw_prediction(**vars(to_draw(model, classification, query)), out=drawing)
        records.append({"file_name": file.as_posix(), "top5": classification.top5})
        predictions.add_image(number + 1, file, image, drawing)
    predictions.records.extend(records)
    predictions.write(out)
    return records, predictions.unreadable


def _batch(model: Classifier, pixels: Tensor) -> Tensor:
    return normalize_bytes(pixels[None].to(next(model.parameters()).device), model.mean, model.std)
