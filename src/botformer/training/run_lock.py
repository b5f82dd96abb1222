"""One run per folder: a lock that ends with the process, however that ends."""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from botformer.errors import InputError

log = logging.getLogger("botformer.training")

LOCK = ".lock"


class RunLock:
    """A folder that is locked."""

    def __init__(self, out: Path, descriptor: int) -> None:
        self._out, self._descriptor = out, descriptor

    def check(self) -> bool:
        """Whether the folder is still there: somebody may have removed or moved it.

        Raises:
            InputError: another run has taken its place.
        """
        try:
            there = os.stat(self._out / LOCK)
        except OSError:
            return False
        if os.path.samestat(there, os.fstat(self._descriptor)):
            return True
        raise InputError(
            f"{self._out} was removed or moved, and another run has begun there; this one ends without touching it"
        )


@contextmanager
def run_lock(out: Path) -> Iterator[RunLock]:
    """Keep other runs out of the folder `out`, which is made if it is not there.

    OUT/.lock says whose it is and is emptied at the end. What a killed run left in it locks nothing.

    Raises:
        InputError: another run has the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(out, descriptor) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): take care that no second run writes there", out, error.strerror)
        if os.fstat(descriptor).st_size:
            log.info("the last run in %s, %s, ended without saying so; its lock is stale", out, _owner(descriptor))
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now().isoformat(" ", "seconds")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        try:
            yield RunLock(out, descriptor)
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def check_unlocked(out: Path) -> None:
    """As `run_lock`, for a moment, to say it before the data are opened; changes nothing."""
    if (out / LOCK).exists():
        with (out / LOCK).open("rb") as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(out, opened.fileno()) from None
            except OSError:
                return  # `run_lock` will say that there are no locks


def _in_use(out: Path, descriptor: int) -> InputError:
    return InputError(f"another run writes into {out}: {_owner(descriptor)}; choose another --out, or wait for its end")


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"host {owner['host']}, process {owner['pid']}, since {owner['since']}"
    except (ValueError, KeyError, TypeError):  # it has just been opened
        return "of which nothing is known yet"
