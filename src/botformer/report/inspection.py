"""Everything that is to be known of a data set before a network is trained on it, and after."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from botformer.create.from_checkpoint import load_for_rgb
from botformer.data.image_facts import read_image_facts
from botformer.errors import InputError
from botformer.evaluate.evaluate_checkpoint import evaluate_checkpoint
from botformer.evaluate.options import EvaluateOptions
from botformer.recipes.schema import DetectionImages, Device
from botformer.report.disagreements import classifier_disagreements, detector_disagreements
from botformer.report.finding import Finding, worst_first
from botformer.report.image_findings import Facts, image_findings
from botformer.report.label_findings import label_findings
from botformer.report.opened_data import OpenedData, Split, open_data

_FEW_IMAGES = 200


class Progress(Protocol):
    """Of one task."""

    def show(self, completed: float) -> None:
        """The fraction that is done."""
        ...


Bar = Callable[[str], AbstractContextManager[Progress]]
"""Takes what is being done."""


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    data: OpenedData
    facts: Facts
    findings: Sequence[Finding]
    """The worst first."""
    canvas: float
    """Side in px of the square on which a detector would see the images."""
    headers_only: bool

    @property
    def trainable(self) -> bool:
        return all(finding.severity != "error" for finding in self.findings)


def inspect_data(data: str, checkpoint: Path | None, fast: bool, bar: Bar, device: Device = "auto") -> Inspection:
    """Open the data as training would, read every image, and say what is wrong or odd.

    With a `checkpoint`, a trained network is asked about every image, too, on `device`, and what it contradicts is
    said. `fast` reads headers alone, and asks the network about the images to validate and test on alone.

    Raises:
        InputError: no such checkpoint, or one for other data.
    """
    opened = open_data(data)
    config = None if checkpoint is None else load_for_rgb(checkpoint).model_config
    canvas = DetectionImages(**config["images"]).canvas if config and "detector" in config else DetectionImages().size
    facts = {split.name: _facts(split, fast, bar) for split in opened.splits}
    findings = [*opened.findings]
    if opened.splits:
        findings += [*image_findings(opened.splits, facts), *label_findings(opened, canvas)]
    if checkpoint is not None:
        findings = [*_contradictions(opened, findings, checkpoint, fast, bar, device), *findings]
    return Inspection(opened, facts, worst_first(findings), canvas, fast)


def _facts(split: Split, headers_only: bool, bar: Bar) -> Any:
    names = [split.image_name(index) for index in range(len(split))]
    with bar(f"reading {split.name}") as progress:
        done = 0

        def on_image() -> None:
            nonlocal done
            done += 1
            progress.show(done / len(names))

        return read_image_facts(split.open, names, headers_only=headers_only, on_image=on_image)


def _contradictions(
    opened: OpenedData, findings: Sequence[Finding], checkpoint: Path, fast: bool, bar: Bar, device: Device
) -> list[Finding]:
    if any(finding.severity == "error" for finding in findings):
        return [Finding("note", f"{checkpoint} was not asked: first the errors must be mended", "all", 1)]
    found = []
    for split in opened.splits:
        if len(split) and not (fast and split.name == "train"):
            try:
                predictions, metrics = _predictions(checkpoint, opened.data, split, bar, device)
            except InputError as error:
                if split.name != "test":  # it alone is not needed to train
                    raise
                found.append(Finding("warning", f"{checkpoint} cannot be measured on it: {error}", "test", 1))
                continue
            if opened.is_detection:
                found += detector_disagreements(split, predictions, metrics)
            else:
                found += classifier_disagreements(split, predictions)
    return found


def _predictions(
    checkpoint: Path, data: str, split: Split, bar: Bar, device: Device
) -> tuple[list[Any], dict[str, Any]]:
    """What predictions.json and metrics.json of an evaluation hold. Made anew each time: labels that were mended have
    changed."""
    with TemporaryDirectory() as folder, bar(f"asking the network about {split.name}") as progress:
        out, workers = Path(folder), evaluation_workers(split)
        options = EvaluateOptions(checkpoint, data, split.name, out, workers=workers, on_progress=progress.show)
        metrics = evaluate_checkpoint(options, device)
        assert metrics is not None, "one process"
        return json.loads((out / "predictions.json").read_text(encoding="utf-8")), metrics


def evaluation_workers(split: Split) -> int:
    """Processes that read images, as `EvaluateOptions` counts them: starting some takes longer than few images do."""
    return 0 if len(split) <= _FEW_IMAGES else -1
