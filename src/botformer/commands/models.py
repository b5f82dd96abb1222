"""List the networks with their exact parameters and multiply-adds for 1000 classes, beside the paper's figures."""

from dataclasses import dataclass

import tyro

from botformer.backbone.flops import count
from botformer.backbone.variants import PUBLISHED, ROWS
from botformer.commands.screen import new_table, print_table
from botformer.errors import InputError
from botformer.terminal import screen

HEADERS = ("model", "pixels", "parameters", "paper", "multiply-adds", "paper")


@dataclass(frozen=True)
class Arguments:
    image_size: int = 0
    """Image size in pixels; 0: the size for which the paper has figures, else the network's default."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer models", description=__doc__)
    if given.image_size < 0:
        raise InputError(f"--image-size must be positive, got {given.image_size}")
    table = new_table(*HEADERS)
    lines, notes = rows(given.image_size)
    for cells in lines:
        table.add_row(*cells)
    console = screen()
    print_table(console, table)
    console.print(
        "Multiply-adds of convolutions and matrix products, without the last layer. An empty paper column: the paper "
        "has no figure for that size.",
        *notes,
        sep="\n",
        soft_wrap=False,
    )


def rows(image_size: int = 0) -> tuple[list[tuple[str, ...]], list[str]]:
    """The rows of the table, and the notes to which its stars refer."""
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
