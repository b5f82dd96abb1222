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
    """A folder that is locked until `release`.

    Raises:
        InputError: another run has the folder.
    """

    def __init__(self, out: Path) -> None:
        self._out, self._descriptor = out, _locked(out)
        self._folder = os.stat(out)

    def check(self) -> bool:
        """Whether the folder is still there: somebody may have removed or moved it. A lock that was removed alone is
        made again.

        Raises:
            InputError: another run has taken its place.
        """
        try:
            there = os.stat(self._out / LOCK)
        except (FileNotFoundError, NotADirectoryError):
            return self._is_locked_again()
        if os.path.samestat(there, os.fstat(self._descriptor)):
            return True
        raise InputError(
            f"{self._out} was removed or moved, and another run has begun there; this one ends without touching it"
        )

    def _is_locked_again(self) -> bool:
        try:
            if not os.path.samestat(os.stat(self._out), self._folder):
                return False
        except (FileNotFoundError, NotADirectoryError):
            return False
        log.warning("%s was removed, and is made again: it keeps other runs out", self._out / LOCK)
        before, self._descriptor = self._descriptor, _locked(self._out)
        os.close(before)
        return True

    def release(self) -> None:
        try:
            os.ftruncate(self._descriptor, 0)
        finally:
            os.close(self._descriptor)


@contextmanager
def run_lock(out: Path) -> Iterator[RunLock]:
    """Keep other runs out of the folder `out`, which is made if it is not there.

    OUT/.lock says whose it is and is emptied at the end. What a killed run left in it locks nothing.

    Raises:
        InputError: another run has the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = RunLock(out)
    try:
        yield lock
    finally:
        lock.release()


def _locked(out: Path) -> int:
    """The descriptor of OUT/.lock, which is locked while it is open."""
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
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


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
