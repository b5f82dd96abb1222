"""One way people lay out a data set, and how it is read: the rows of the documentation's table and of the tests."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Layout:
    name: str
    made_by: str
    """Programs and data sets that write it."""
    tree: tuple[str, ...]
    """Its files; where several are alike, one of them."""
    read_as: str
    """What comes of it, or "refused: " and why."""


def markdown_table(rows: Iterable[Layout]) -> str:
    """A line per layout."""
    lines = ["| layout | made by | files | read as |", "|---|---|---|---|"]
    for row in rows:
        # The first of each folder and ending stands for the others.
        alike = {(file.rpartition("/")[0], PurePosixPath(file).suffix): file for file in reversed(row.tree)}
        files = "<br>".join(f"`{file}`" for file in row.tree if file in alike.values())
        lines.append(f"| {row.name} | {row.made_by} | {files} | {row.read_as} |".replace("\n", " "))
    return "\n".join(lines) + "\n"
