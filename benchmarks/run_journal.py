"""What a run's metrics.jsonl says of its steps, without the imports of the package's own reader: ten seconds."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def read_records(metrics: Path) -> list[dict[str, Any]]:
    """Its records, without a last line that is still being written; none where there is no such file."""
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True) if metrics.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def step_seconds(records: Iterable[dict[str, Any]], batch: int) -> float:
    """Of all training steps, without evaluations. Of a long epoch not every step has a record: one stands for those
    since the record before it."""
    seconds, before = 0.0, 0
    for record in records:
        if record["kind"] == "train":
            seconds += (record["step"] - before) * batch / record["images_per_s"]
            before = record["step"]
    return seconds


def training_seconds(run: Path) -> float:
    """`step_seconds` of a run, by its folder."""
    batch = json.loads((run / "recipe.json").read_text(encoding="utf-8"))["run"]["batch_size"]
    return step_seconds(read_records(run / "metrics.jsonl"), batch)
