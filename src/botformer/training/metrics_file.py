"""OUT/metrics.jsonl: one JSON object a line, appended as the run goes."""

import json
import math
import os
from pathlib import Path
from typing import Any

from botformer import stored_names
from botformer.atomic_write import write_text
from botformer.errors import InputError

Record = dict[str, Any]
"""`kind` ("train" or "evaluation"), `step` (steps done), `epoch` and numbers."""


class MetricsFile:
    def __init__(self, path: Path, step: int):
        """Continue the record of a run at `step`: what lies beyond it is dropped, for it will happen again."""
        kept = [record for record in read_metrics(path) if record["step"] <= step] if step and path.exists() else []
        write_text(path, "".join(_line(record) for record in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        self._file.write(_line(record))
        self._file.flush()

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[Record]:
    """The records of a run. A last line that a kill cut short is left out; any other broken line is an `InputError`."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # the rest has no newline yet
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            assert isinstance(record["step"], int)
        except (ValueError, KeyError, TypeError, AssertionError):
            raise InputError(f"{path}, line {number}, is not a record of a run; delete that line") from None
        records.append(stored_names.metrics(record))
    return records


def finite_or_none(values: dict[str, float]) -> dict[str, float | None]:
    """The same numbers with null for what JSON cannot say."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
