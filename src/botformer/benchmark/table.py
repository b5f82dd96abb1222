"""The figures of a benchmark's receipt as a table in the terminal."""

import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table


def print_table(receipt: Path, console: Console) -> None:
    """Print the figures of a receipt, with a line between cases and, below, the reasons for what was left out."""
    figures = json.loads(receipt.read_text(encoding="utf-8"))["figures"]
    columns = [key for key in dict.fromkeys(key for row in figures for key in row) if key != "left_out"]
    labels = columns[: columns.index("implementation")]
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in columns:
        is_figure = column not in (*labels, "implementation")
        table.add_column(column.replace("_", " "), justify="right" if is_figure else "left", no_wrap=is_figure)
    timed = [row for row in figures if "left_out" not in row]
    for row, following in zip(timed, [*timed[1:], None], strict=True):
        ends = following is not None and any(row[label] != following[label] for label in labels)
        table.add_row(*("" if row.get(column) is None else f"{row[column]}" for column in columns), end_section=ends)
    console.print(table, soft_wrap=False)
    reasons = [f"{row['implementation']}: {row['left_out']}" for row in figures if "left_out" in row]
    for reason in dict.fromkeys(reasons):
        count = reasons.count(reason)
        console.print(f"left out: {reason} ({count} case{'s'[: count != 1]})")
