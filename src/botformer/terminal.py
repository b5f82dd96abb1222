"""The terminal: text as it is. File and class names may hold what rich would take for markup or emoji codes.

Every console and every column of text of a progress bar is made here.
"""

from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        """The program decides what that means; rich would end it with the status of a mistake."""
        raise BrokenPipeError


def screen(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints text as it is."""
    return _Screen(markup=False, emoji=False, highlight=False, soft_wrap=True, stderr=stderr, quiet=quiet)


def text_column(template: str) -> TextColumn:
    """A column of a progress bar; "{task.description}" is replaced by what it stands for, which is left as it is."""
    return TextColumn(template, markup=False)


def plain(text: str) -> Text:
    """For parts of rich that take markup whatever the console says, such as a status."""
    return Text(text)
