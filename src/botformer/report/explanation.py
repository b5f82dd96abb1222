"""What a network looks at on one image, computed: a class or a detection, every head, positions."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from botformer.backbone.resnet import Classifier
from botformer.create.from_checkpoint import Loaded
from botformer.detection import Detector
from botformer.errors import InputError, unknown
from botformer.explain import (
    CellMap,
    DetectionCam,
    LayerHeads,
    LayerPositions,
    PositionEffect,
    SeenImage,
    attention_heads,
    grad_cam,
    grad_cam_of_detection,
    position_maps,
    rollout,
    see,
    without_positions,
)
from botformer.explain.forward_pass import attends, evaluation_mode, padded
from botformer.explain.without_positions import has_positions, probabilities
from botformer.text import counted

log = logging.getLogger("botformer")


@dataclass(frozen=True)
class ExplainOptions:
    """What is explained; by default the most probable class, or the best detection."""

    pixel_yx: tuple[int, int] | None = None
    """Pixel of the image, from 0."""
    class_name: str | None = None
    detection: int | None = None
    """By rank, from 0, the best."""


@dataclass(frozen=True)
class ExplainedClass:
    """A class of a classifier."""

    name: str
    probability: float
    cam: CellMap


@dataclass(frozen=True)
class ExplainedDetection:
    """A detection, with its box in pixels of the image as the network sees it."""

    number: int
    count: int
    """Of all detections on the image."""
    name: str
    score: float
    box_xyxy: tuple[float, float, float, float]
    cam: DetectionCam


@dataclass(frozen=True)
class Explanation:
    """One image in one network."""

    seen: SeenImage
    network: str
    """In a few words."""
    query_yx: tuple[float, float]
    """Whose attention is shown, in pixels of the image as the network sees it."""
    query_words: str
    """Which position that is."""
    subject: ExplainedClass | ExplainedDetection | None
    """None for a pixel of a detector, and where nothing is detected."""
    class_names: list[str]
    probabilities: np.ndarray | None
    """(classes,) of a classifier."""
    heads: list[LayerHeads]
    """Empty for a network without attention layers, as the next two."""
    rollout: CellMap | None
    positions: list[LayerPositions]
    without: PositionEffect | None
    """Of a classifier with position tables."""


def explain(
    loaded: Loaded, image: Path, options: ExplainOptions, on_progress: Callable[[float], object] = lambda fraction: None
) -> Explanation:
    """Explain what the network makes of one image file.

    Raises:
        InputError: the image cannot be read, or the options do not fit the image or the network.
    """
    model, model_config = loaded
    seen = see(model_config, image)
    on_progress(0.1)
    if isinstance(model, Classifier):
        return _explain_class(model, model_config, seen, options, on_progress)
    return _explain_detection(model, model_config, seen, options, on_progress)


def _explain_class(
    model: Classifier,
    model_config: dict[str, Any],
    seen: SeenImage,
    options: ExplainOptions,
    on_progress: Callable[[float], object],
) -> Explanation:
    if options.detection is not None:
        raise InputError(
            "the network is a classifier, and --detection is for detectors; leave it out or name a --class"
        )
    names = model_config["class_names"]
    if options.class_name is not None and options.class_name not in names:
        raise unknown("class", options.class_name, names)
    said = probabilities(model, seen.pixels)
    chosen = int(said.argmax()) if options.class_name is None else names.index(options.class_name)
    cam = grad_cam(model, seen.pixels, chosen)
    on_progress(0.4)
    if options.pixel_yx is not None:
        query, words = seen.pixel(*options.pixel_yx), "the pixel that was asked for"
    else:
        query, words = _peak(cam, seen), f"where Grad-CAM is brightest for {names[chosen]}"
    attending = attends(model)
    return Explanation(
        seen,
        model_config["model"],
        query,
        words,
        ExplainedClass(names[chosen], float(said[chosen]), cam),
        names,
        said,
        attention_heads(model, seen.pixels, query) if attending else [],
        rollout(model, seen.pixels) if attending else None,
        position_maps(model, seen.pixels) if attending else [],
        without_positions(model, seen.pixels) if has_positions(model) else None,
    )


def _explain_detection(
    model: Detector,
    model_config: dict[str, Any],
    seen: SeenImage,
    options: ExplainOptions,
    on_progress: Callable[[float], object],
) -> Explanation:
    if model_config["images"].get("tile"):
        log.info("the network looks at the whole image at once here, which is not cut into tiles (images.tile)")
    names = [name for _, name in model_config["categories"]]
    subject = None
    if options.pixel_yx is not None:
        query, words = seen.pixel(*options.pixel_yx), "the pixel that was asked for"
    else:
        subject = _detection(model, names, seen, options, on_progress)
        height, width = seen.pixels.shape[1:]
        query, words = (height / 2, width / 2), "the middle of the image, as nothing is detected"
        if subject is not None:
            x1, y1, x2, y2 = subject.box_xyxy
            query, words = ((y1 + y2) / 2, (x1 + x2) / 2), f"the middle of detection {subject.number}"
    on_progress(0.6)
    attending = attends(model)
    return Explanation(
        seen,
        f"{model_config['detector']} {model_config['model']}",
        query,
        words,
        subject,
        names,
        None,
        attention_heads(model, seen.pixels, query) if attending else [],
        rollout(model, seen.pixels, query) if attending else None,
        position_maps(model, seen.pixels) if attending else [],
        None,
    )


def _detection(
    model: Detector,
    names: list[str],
    seen: SeenImage,
    options: ExplainOptions,
    on_progress: Callable[[float], object],
) -> ExplainedDetection | None:
    """The one that is asked for; None where nothing is detected and nothing was asked for."""
    if options.class_name is not None and options.class_name not in names:
        raise unknown("class", options.class_name, names)
    with evaluation_mode(model):
        (found,) = model.padded_detections(padded(model, seen.pixels), [(seen.pixels.shape[1], seen.pixels.shape[2])])
    on_progress(0.3)
    labels = [names[int(label) - 1] for label in found["labels"]]
    counts = counted(Counter(labels), 5) or "nothing"
    number = options.detection or 0
    if options.class_name is not None:
        if options.class_name not in labels:
            raise InputError(f"no {options.class_name} is detected on the image; detected: {counts}")
        number = labels.index(options.class_name)
    if options.detection is not None and not 0 <= number < len(labels):
        counting = f"--detection counts from 0, the best, to {len(labels) - 1}" if labels else "use --pixel Y X"
        raise InputError(f"there is no detection {number}; detected: {counts}; {counting}")
    if not labels:
        return None
    x1, y1, x2, y2 = found["boxes"][number].tolist()
    cam = grad_cam_of_detection(model, seen.pixels, (x1, y1, x2, y2), int(found["labels"][number]))
    score = float(found["scores"][number])
    return ExplainedDetection(number, len(labels), labels[number], score, (x1, y1, x2, y2), cam)


def _peak(cam: CellMap, seen: SeenImage) -> tuple[float, float]:
    """The middle of the brightest cell, the image's where nothing is bright."""
    sides = seen.pixels.shape[1:]
    if not cam.values.max() > 0:
        return sides[0] / 2, sides[1] / 2
    cell = np.unravel_index(int(cam.values.argmax()), cam.values.shape)
    y, x = (min((int(at) + 0.5) * cam.stride_px, side - 0.5) for at, side in zip(cell, sides, strict=True))
    return y, x
