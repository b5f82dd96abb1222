"""Every layout of detection data through the command that people type."""

import json
from pathlib import Path

import pytest

from botformer import cli
from tests.data.detection.layout_examples import EXAMPLES, Example

pytest.importorskip("faster_coco_eval")
pytest.importorskip("supervision")

SMALL = [
    "--images.size=64", "--images.test-size=64", "--run.batch-size=1", "--run.workers=0", "--run.max-steps=1",
    "--run.evaluate-every=100", "--run.device=cpu",
    "--settings.keypoint-convolutions=1", "--settings.keypoint-channels=16",
]  # fmt: skip
FEW = ("COCO, one file", "YOLO, key points", "Pascal VOC")
"""A tenth held out, key points, crowds and lists of splits; `test_layout_examples` has all rows."""


@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.name in FEW], ids=lambda example: example.name)
def test_train_and_evaluate(example: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    example.write(data)
    kind = "keypoint_rcnn" if example.keypoints else "faster_rcnn"
    assert cli.main(["train", "nuclei_mini", "--data", str(data), "--out", str(run), "--detector", kind, *SMALL]) == 0
    assert ("are held out" in caplog.text) == example.held_out
    assert cli.main(["evaluate", str(run), "--data", str(data), "--workers=0"]) == 0
    metrics = json.loads((run / "evaluation/metrics.json").read_text())
    assert metrics["objects"] == example.validation
