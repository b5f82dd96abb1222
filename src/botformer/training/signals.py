"""Signals ask the loop to stop after the step; a second one, some seconds later, stops at once."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from botformer.stop_signals import STOP_SIGNALS

SAME_REQUEST_S = 2.0
"""A signal to a whole group of processes reaches one of torchrun's twice: from the sender and from torchrun."""


class Interrupted(SystemExit):
    """Raised by `fit` when a signal stopped it, after the checkpoint. Its code is the shell's: 128 + signal."""


class StopRequested(BaseException):
    """Raised by a signal while the process waits for something that is not needed to save the run."""


class StopRequest:
    """The signal that asked to stop, 0 for none."""

    def __init__(self) -> None:
        self.signal = 0
        self._interrupts = False

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """Inside, the signal ends what is going on, with `StopRequested`."""
        self._interrupts = True
        try:
            if self.signal:
                raise StopRequested
            yield
        finally:
            self._interrupts = False

    def ask(self, number: int) -> None:
        self.signal = number
        if self._interrupts:
            self._interrupts = False
            raise StopRequested


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch the signals while inside. Outside the main thread, where Python allows no handlers, none is caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    own_process = os.getpid()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    first_at = 0.0
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ  # which repeats a SIGTERM until it kills

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        if os.getpid() != own_process:
            # A data worker that was forked from us: its parent ends it. Ctrl-C reaches it too; it must live on, or the
            # step could not be finished.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif not request.signal:
            first_at = time.monotonic()
            request.ask(number)
        elif time.monotonic() - first_at > SAME_REQUEST_S and not (number == signal.SIGTERM and under_torchrun):
            restore()
            signal.raise_signal(number)

    for number, handler in before.items():
        if number == getattr(signal, "SIGHUP", None) and handler == signal.SIG_IGN:
            continue  # nohup: the run shall outlive its terminal
        signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()


def stop_with_parent() -> None:
    """From now on the end of the process that started this one, even a killed one's, is a SIGTERM here."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def stop() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
