"""The accuracy of an exported network on validation images, by the code that `botformer evaluate` uses."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from botformer.classification.metrics import Accuracy
from botformer.create import Loaded
from botformer.deploy.gate import Scale
from botformer.deploy.prepared_images import Batches, fixed_side, inputs_of, prepared_batches
from botformer.deploy.read_detections import read_detections
from botformer.deploy.runtimes import Runtime
from botformer.detection import Detector
from botformer.detection.padding import PaddedImages
from botformer.detection.task import DetectionTask
from botformer.errors import InputError

LIMIT = 0.01
"""What int8 may lose: a point of top-1, 0.01 of average precision."""


class DeployedAccuracy:
    """Top-1 of a classifier; of a detector COCO's AP of masks, key points or boxes, whichever it is trained for.

    Args: as `prepared_images.prepared_batches`; `at_most` of the validation images are measured, 0: all.
    """

    def __init__(
        self, loaded: Loaded, config: Mapping[str, Any], data: str, at_most: int = 0, workers: int = -1
    ) -> None:
        self._loaded, self._config = loaded, config
        side = fixed_side(config)
        self._batches, self._categories = prepared_batches(loaded, side, data, "validation", at_most, workers)
        self.scale = Scale("", 0, "")
        """Known once something was measured."""

    def measure(self, runtime: Runtime, on_progress: Callable[[float], object] = lambda fraction: None) -> float:
        """Between 0 and 1. Raises `InputError` where the images hold nothing to be found."""
        model_config = self._loaded.model_config
        if model_config["task"] == "classification":
            accuracy = Accuracy(len(model_config["class_names"]))
            for batch in _counted(self._batches, on_progress):
                logits = runtime(**inputs_of(self._config, batch["images"][0]))["logits"][:1]
                accuracy.update(torch.from_numpy(logits), batch)
            metrics = accuracy.compute()
            self.scale = Scale("top1", int(metrics["images"]), "images")
            return metrics["top1"]
        task = DetectionTask(
            _DeployedDetector(runtime, self._loaded.model),  # pyright: ignore[reportArgumentType]
            model_config,
            self._categories,
            set(),
        )
        evaluator = task.evaluator()
        for batch in _counted(self._batches, on_progress):
            evaluator.update(task.predict(batch), batch)
        objects = sum(row["objects"] for row in evaluator.per_class(evaluator.kinds[-1]))
        if not objects:
            raise InputError("the validation images have no objects, so that accuracy cannot be measured")
        self.scale = Scale(task.headline, objects, "objects")
        return evaluator.compute()[task.headline]


class _DeployedDetector:
    """An exported detector as `detection.task` uses one."""

    def __init__(self, runtime: Runtime, detector: Any) -> None:
        assert isinstance(detector, Detector)
        self._runtime = runtime
        self.kind, self.settings = detector.kind, detector.settings

    def padded_detections(
        self, images: PaddedImages, sizes: Sequence[tuple[int, int]], flip: None = None
    ) -> list[dict[str, Any]]:
        assert flip is None
        return [
            read_detections(self._runtime(**inputs_of(self._runtime.config, pixels, seen)), [seen], [size])[0]
            for pixels, seen, size in zip(images.pixels, images.sizes, sizes, strict=True)
        ]


def _counted(batches: Batches, on_progress: Callable[[float], object]) -> Iterator[Any]:
    for number, batch in enumerate(batches, 1):
        yield batch
        on_progress(number / len(batches))
