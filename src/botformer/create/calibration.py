"""BatchNorms that were loaded without their statistics, calibrated on images of the data before a training starts."""

import logging
import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from botformer.backbone.calibrate_batch_norm import calibrate_batch_norm
from botformer.backbone.resnet import Stages
from botformer.detection import Detector
from botformer.detection.task import padded_images
from botformer.errors import InputError
from botformer.training.loaded_weights import LoadedWeights
from botformer.training.task import Batch, Task

log = logging.getLogger(__name__)


def calibrate(task: Task, batches: Iterable[Batch], loaded: LoadedWeights, device: torch.device) -> None:
    """Calibrate the BatchNorms of the backbone of `task`, in place, on its evaluation's view of `batches`."""
    assert isinstance(task, nn.Module)
    started, model = time.perf_counter(), task.model.to(device)
    stages = model.backbone if isinstance(model, Detector) else model
    assert isinstance(stages, Stages)
    images = calibrate_batch_norm(stages, _prepared(model, batches, device))
    log.info(
        "BatchNorm calibrated on %d training images in %.1f s: %s has no variances",
        images,
        time.perf_counter() - started,
        loaded.source,
    )


def _prepared(
    model: nn.Module, batches: Iterable[Batch], device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Normalised images (B, 3, h, w) and the mask of their padding. Raises InputError where there are none."""
    empty = True
    for batch in batches:
        empty = False
        on_device = dict(batch) | {"images": batch["images"].to(device)}
        if isinstance(model, Detector):
            yield model.normalized(padded_images(on_device))
        else:
            assert isinstance(model, Stages)
            yield model.preprocess(on_device["images"]), None
    if empty:
        raise InputError("none of the images on which BatchNorm is calibrated can be read; the warnings name them")
