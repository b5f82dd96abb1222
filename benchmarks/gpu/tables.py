"""The measured tables that the package reads: from the folder of receipts into the package."""

import json
from pathlib import Path
from typing import Any

from botformer.atomic_write import write_json
from botformer.attention.cuda_choice import CHOICE_FILE
from botformer.attention.triton_blocks import TUNING_FILE

TABLES = (TUNING_FILE, CHOICE_FILE)
_CASE = ("kernel", "dtype", "head", "height", "width", "pool", "pass")
"""What a row is of; the rest was measured."""


def store(table: Path, card: str, entry: dict[str, Any], results: Path) -> Path:
    """Replace one card's entry ("9.0") of a table in the folder of receipts."""
    path = results / table.name
    write_json(path, _read(path) | {card: entry}, indent=1)
    return path


def install(results: Path) -> list[str]:
    """Put the cases that `results` has into the package's tables; returns the tables' names.

    Other cards stay, and so do cases of the same card that were not measured again: a call may end before all are.
    """
    found = [table for table in TABLES if (results / table.name).is_file()]
    for table in found:
        write_json(table, _merged(_read(table), _read(results / table.name)), indent=1)
    return [table.name for table in found]


def _merged(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(known)
    for capability, entry in new.items():
        before = known.get(capability, {"card": "", "rows": []})
        kept = {_case(row): row for row in before["rows"]} if before["card"] == entry["card"] else {}
        rows = kept | {_case(row): row for row in entry["rows"]}
        merged[capability] = entry | {"rows": list(rows.values())}
    return merged


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _CASE)


def _read(table: Path) -> dict[str, Any]:
    return json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
