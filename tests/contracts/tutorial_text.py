"""The text of a tutorial as a program: its fenced blocks, in their order.

A page consists of text and of blocks fenced by ``` with one of three words: `python`, `bash`, and `text`, which is what
the block above it prints. Blocks of Python share their names, commands share a folder. In printed text `...` stands for
anything, a line of nothing else for any lines. `<!-- not run: why -->` in the line above a block of commands leaves it
out; its commands are parsed all the same.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from botformer import cli

from .command_lines import parse

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)^```[ ]*$", re.MULTILINE)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\n\Z")
PATIENCE_S = 300
"""With a block of commands."""
_OF_A_SHELL = re.compile(r"[|<>&;$`*?]")


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    line: int
    """Of its first line, in the page."""
    not_run: str = ""
    """Why, if it is left out."""


class TutorialError(AssertionError):
    """The page says something else than what happens."""


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page. Raises `TutorialError` for one whose word is none of the three."""
    found = []
    for match in _FENCE.finditer(page):
        kind, line = match[1].strip(), page.count("\n", 0, match.start()) + 2
        reason = _NOT_RUN.search(page, 0, match.start())
        if kind not in ("python", "bash", "text"):
            raise TutorialError(f"line {line - 1}: a block of {kind or 'nothing'}; expected python, bash or text")
        if reason and kind != "bash":
            raise TutorialError(f"line {line - 1}: only commands may be left out")
        found.append(Block(kind, match[2], line, reason[1] if reason else ""))
    if page.count("\n```") + page.startswith("```") != 2 * len(found):
        raise TutorialError("a fence is not closed")
    return found


def run(page: str, name: str = "page") -> None:
    """Run a page in the folder at hand. Raises `TutorialError` where a command fails or something else is printed, and
    whatever a block of Python raises."""
    names: dict = {"__name__": "__main__"}
    printed: str | None = None
    for block in blocks(page):
        if block.kind == "text":
            if printed is None:
                raise TutorialError(f"{name}, line {block.line}: nothing was run whose output this could be")
            compare(block.text, printed, f"{name}, line {block.line}")
            printed = None
        elif block.not_run:
            parse_commands(block)
            printed = None
        elif block.kind == "python":
            printed = _said(lambda block=block: _run_python(block, names, name))
        else:
            printed = _run_commands(block, name)


def compare(expected: str, printed: str, where: str) -> None:
    """Whether the lines are these, blank ones and spaces between words aside."""
    lines = [" ".join(line.split()) for line in expected.splitlines() if line.strip()]
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n" for line in lines
    )
    got = "".join(f"{' '.join(line.split())}\n" for line in printed.splitlines() if line.strip())
    if not re.fullmatch(pattern, got):
        raise TutorialError(f"{where}: the page says\n{expected}\nbut this was printed:\n{printed}")


def parse_commands(block: Block) -> None:
    """Commands that are not run: the shell and botformer understand them."""
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for line in logical_lines(block.text):
        words = shlex.split(line, comments=True)
        for program in ("botformer", "botformer.cli"):
            if program in words:
                parse(words[words.index(program) + 1 :])


def logical_lines(text: str) -> list[str]:
    joined = text.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def _run_python(block: Block, names: dict, name: str) -> None:
    exec(compile("\n" * (block.line - 1) + block.text, name, "exec"), names)


def _run_commands(block: Block, name: str) -> str:
    """In this process what is nothing but botformer's, which need not be started again; else in a shell."""
    lines = logical_lines(block.text)
    if all(line.startswith("botformer ") and not _OF_A_SHELL.search(line) for line in lines):
        printed = ""
        for line in lines:
            status, said = _in_this_process(shlex.split(line, comments=True)[1:])
            printed += said
            _check(status, said, f"{name}, line {block.line}: {line}")
        return printed
    status, said = _in_a_shell(block.text)
    _check(status, said, f"{name}, line {block.line}")
    return said


def _in_a_shell(script: str) -> tuple[int, str]:
    """In a session of its own, of which nothing is left."""
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as shell:  # fmt: skip
        try:
            said, _ = shell.communicate(timeout=PATIENCE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return shell.returncode, said


def _check(status: int, said: str, where: str) -> None:
    if status != 0:
        raise TutorialError(f"{where}: exit status {status}\n{said}")


def _in_this_process(arguments: list[str]) -> tuple[int, str]:
    status = 1

    def call() -> None:
        nonlocal status
        try:
            status = cli.main(arguments)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)

    said = _said(call)
    return status, said


def _said(call: Callable[[], object]) -> str:
    """What it prints, errors included."""
    screen = StringIO()  # not closed: a handler of the log may go on with it
    with redirect_stdout(screen), redirect_stderr(screen):
        call()
    return screen.getvalue()


def _environment() -> dict[str, str]:
    """Of a shell that finds this Python with its commands (torchrun, botformer), and these sources first."""
    paths = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT / "src")}
    return (
        os.environ
        | {name: os.pathsep.join(filter(None, (path, os.environ.get(name)))) for name, path in paths.items()}
        | {"OMP_NUM_THREADS": "1"}
    )
