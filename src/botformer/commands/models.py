"""List the networks with their exact counts for 1000 classes, ours and the paper's in columns of their own."""

from dataclasses import dataclass

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from botformer.backbone.flops import count
from botformer.backbone.variants import PUBLISHED, ROWS
from botformer.errors import InputError

HEADERS = ("model", "pixels", "parameters", "paper", "multiply-adds", "paper")


@dataclass(frozen=True)
class Arguments:
    image_size: int = 0
    """Count at this many pixels; 0: at the size the paper counts at, or else the row's own."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer models", description=__doc__)
    if given.image_size < 0:
        raise InputError(f"--image-size must be positive, got {given.image_size}")
    table = Table(box=box.SIMPLE, pad_edge=False)
    for index, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if index else "left", no_wrap=True)
    lines, notes = rows(given.image_size)
    for cells in lines:
        table.add_row(*cells)
    console = Console()
    console.print(table)
    console.print(
        "Multiply-adds of convolutions and matrix products, without the last layer. An empty paper column: the paper "
        "prints no figure for that size.",
        *notes,
        sep="\n",
    )


def rows(image_size: int = 0) -> tuple[list[tuple[str, ...]], list[str]]:
    """The cells of the table, and the notes that stars in it refer to."""
    lines, notes = [], []
    for name, row in ROWS.items():
        published = {p.image_size: p for p in PUBLISHED.get(name, ())}
        size = image_size or next(iter(published), row.image_size)
        counts, paper = count(row, size), published.get(size)
        if paper and paper.note and paper.note not in notes:
            notes.append(paper.note)
        stars = "*" * (notes.index(paper.note) + 1) if paper and paper.note else ""
        lines.append(
            (
                name + stars,
                str(size),
                f"{counts.parameters:,}",
                paper.parameters if paper else "",
                f"{counts.multiply_adds / 1e9:.3f}e9",
                paper.multiply_adds if paper else "",
            )
        )
    return lines, [f"{'*' * (number + 1)} {note}" for number, note in enumerate(notes)]
