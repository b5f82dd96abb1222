"""Ctrl-C and SIGTERM: ask the loop to stop after the step; a second time, stop at once."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """Raised by `fit` when a signal stopped it, after the checkpoint. Its code is the shell's: 128 + signal."""


class StopRequest:
    """The signal that asked to stop, 0 for none."""

    signal = 0


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catch the signals while inside. Outside the main thread, where Python allows no handlers, none is caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    own_process = os.getpid()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own_process:
            request.signal = number
            # A cluster may have signalled this process as well as torchrun, which repeats it, and kills in the end.
            if number != signal.SIGTERM or "TORCHELASTIC_RUN_ID" not in os.environ:
                restore()
        elif number == signal.SIGTERM:  # a data worker that was forked from us: its parent ends it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # Ctrl-C reaches the data workers too; they must live on, or the step could not be finished

    for number in SIGNALS:
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
