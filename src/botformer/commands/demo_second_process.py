"""What a second core does for the demo meanwhile: a process of its own, whose output goes to a file."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from botformer.errors import InputError
from botformer.training.signals import stop_with_parent

_LAST_LINES = 20
"""Of the log, shown where the process failed."""


@contextmanager
def second_process(work: Callable[..., Iterator[Any]], *arguments: Any, log: Path) -> Iterator[Callable[[], Any]]:
    """Inside, the generator `work(*arguments)` runs beside; call what is yielded to wait for the next thing it yields.

    What the process prints goes to `log`. Whoever leaves early stops it: a training run ends with its checkpoint, and
    can be continued. Raises InputError as the generator does, and with the end of the log where the process failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, log, work, arguments))
    process.start()
    sender.close()  # the other process has its own: when that one ends, nothing more can come

    def result() -> Any:
        try:
            value = receiver.recv()
        except EOFError:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
            raise InputError(f"the second process failed; the end of {log}:\n{end}") from None
        if isinstance(value, InputError):
            raise value
        return value

    try:
        yield result
    finally:
        receiver.close()
        if process.is_alive():
            process.terminate()
        process.join()


def _run(sender: Connection, log: Path, work: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # a terminal's Ctrl-C is for the first process, which then asks this one to stop
    stop_with_parent()
    with log.open("a", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        try:
            for value in work(*arguments):
                sender.send(value)
        except InputError as error:
            sender.send(InputError(str(error)))
