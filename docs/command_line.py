"""What every command says for --help, as sections of docs/cli.md."""

import os
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from unittest.mock import patch

from botformer import cli

WIDTH = 88
"""Characters per line."""
_MORE = {"train": ("classify", "segment", "imagenet_botnet50_100")}
"""What of a command has a help of its own: verbs that train, and a recipe."""


def sections() -> str:
    """A heading per command, what it is for, and its help as it is printed."""
    parts = []
    for name, what in cli.COMMANDS.items():
        parts += [f"## botformer {name}", f"{what[0].upper()}{what[1:]}.", _help_of(name)]
        for one in _MORE.get(name, ()):
            parts += [f"### botformer {name} {one}", _help_of(name, one)]
    return "\n\n".join(parts)


def _help_of(*words: str) -> str:
    screen = StringIO()
    surroundings = {"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    with patch.dict(os.environ, surroundings), redirect_stdout(screen), redirect_stderr(screen), suppress(SystemExit):
        cli.main([*words, "--help"])
    lines = [line.rstrip() for line in screen.getvalue().strip().splitlines()]
    return "\n".join(["```text", f"$ botformer {' '.join(words)} --help", *lines, "```"])


if __name__ == "__main__":
    sys.stdout.write(sections())
