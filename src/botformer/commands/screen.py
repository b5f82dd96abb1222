"""What commands write to the terminal: plain text, tables, and progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table

from botformer.terminal import screen, text_column
from botformer.text import printable

_NAME_LEAST = 24
"""Columns that a file name gets, however narrow the terminal."""
_NAME_FRACTION = 0.45
"""Of the terminal's width that file names may take."""


def new_table(first: str, *numbers: str) -> Table:
    """A table of names and numbers; only the names may be broken over lines."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(first, overflow="fold")
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def print_table(console: Console, table: Table) -> None:
    console.print(table, soft_wrap=False)


def file_name(name: str, console: Console) -> str:
    """A file name for a table: at most 45% of the terminal's width, at least 24 columns; the middle is left out."""
    return shorten_middle(printable(name), max(_NAME_LEAST, int(console.width * _NAME_FRACTION)))


def shorten_middle(text: str, width: int) -> str:
    """At most `width` columns of the terminal: "beginning…end", with twice as much of the end."""
    if cell_len(text) <= width:
        return text
    end = text
    while cell_len(end) > (width - 1) * 2 // 3:
        end = end[1:]
    beginning = text
    while cell_len(beginning) > width - 1 - cell_len(end):
        beginning = beginning[:-1]
    return f"{beginning}\N{HORIZONTAL ELLIPSIS}{end}"


class ProgressBar:
    """A bar that goes from 0 to `total`."""

    def __init__(self, progress: Progress, title: str, total: float) -> None:
        self._progress, self._task = progress, progress.add_task(title, total=total)

    def show(self, completed: float) -> None:
        self._progress.update(self._task, completed=completed)

    def advance(self) -> None:
        """By one."""
        self._progress.advance(self._task)


@contextmanager
def progress_bar(title: str, total: float = 1.0, *, quiet: bool = False) -> Iterator[ProgressBar]:
    """A bar on standard error, gone at the end."""
    columns = (text_column("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen(stderr=True, quiet=quiet), transient=True) as progress:
        yield ProgressBar(progress, title, total)
