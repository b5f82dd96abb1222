"""What is to be evaluated, on which images."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botformer.create.from_checkpoint import weights_file


@dataclass(frozen=True)
class EvaluateOptions:
    checkpoint: Path
    """As `botformer.load` takes it."""
    data: str
    """Images in class folders for a classifier, annotated images (COCO, YOLO, ...) for a detector."""
    split: str
    out: Path
    """Folder of the results."""
    by: str | None = None
    """Detectors: also measure groups of images, by this key of the image records."""
    max_bad_records: int | None = None
    """Detectors: stop when more annotations than this make no sense; None: as in training."""
    batch_size: int | None = None
    """Images per batch in each process; None: 64 for a classifier, 4 for a detector."""
    workers: int = -1
    """Processes that read images; -1: one per core, at most 8 per process; 0: none."""
    tile: int | None = None
    """Detectors: side in px of the tiles into which larger images are cut; 0: none; None: what the network was trained
    for."""
    flip: bool = False
    """Test-time augmentation: predict on mirror images too, and average."""
    at_most: int = 0
    """Images, evenly spread over all; 0: all of them."""
    on_progress: Callable[[float], object] = lambda fraction: None
    """Called with the fraction of the images that are done."""

    def header(self, task: str, flipped: bool) -> dict[str, Any]:
        """The first entries of metrics.json: what was evaluated, on what. `flipped`: in fact, and not left out."""
        return {
            "task": task,
            "checkpoint": str(self.checkpoint),
            "weights": str(weights_file(self.checkpoint)),
            "data": self.data,
            "split": self.split,
            "tta": "flip" if flipped else "none",
        }
