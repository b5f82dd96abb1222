"""One row of the table of layouts and formats that are read. Tests are driven by the rows, and docs/ shows them."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    name: str
    made_by: str
    tree: tuple[str, ...]
    """The files of the example."""
    read_as: str


def markdown_table(rows: Iterable[Layout]) -> str:
    """A Markdown table, one line per layout."""
    lines = ["| layout | made by | files | read as |", "|---|---|---|---|"]
    for row in rows:
        files = "<br>".join(f"`{file}`" for file in row.tree)
        lines.append(f"| {row.name} | {row.made_by} | {files} | {row.read_as} |".replace("\n", " "))
    return "\n".join(lines) + "\n"
