"""Cases run in processes of their own, watched from outside: what went wrong, how long it took, how much memory.

Nothing is written outside a folder for the case: a system says so to who may not, and here to everybody.

A find is a trace, an exception that is no `InputError`, another exit status than 0, 1 or 2, code or a connection that
a file started, more than `LONGEST_S` seconds, or more than `MOST_MIB` of memory.
"""

import contextlib
import errno
import faulthandler
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SHARES = {
    "images": 25, "weights": 15, "annotations": 15, "recipes": 12, "classes": 10, "commands": 10, "checkpoints": 5,
    "predictions": 4, "runs": 4,
}  # fmt: skip
"""Kind of case -> how many of a hundred: what takes longer, and repeats itself sooner, less often."""
LONGEST_S = 20.0
MOST_MIB = 2048
_PER_PROCESS = 400
"""Cases, then a new process begins: what libraries keep does not add up."""
_ADDRESS_SPACE = 16 * 2**30
"""A case that wants more is stopped before the machine is."""
_STARTS_CODE = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn", "os.startfile")
_CONNECTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
_CHANGES = ("os.truncate", "os.chmod", "os.chown", "os.utime")
_CHANGES_NAMES = {
    "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.link": (1,), "os.symlink": (1,),
    "shutil.rmtree": (0,), "shutil.move": (0, 1),
}  # fmt: skip
"""Event -> which of its arguments are names that come or go."""
_UNPICKLES = ("os", "posix", "nt", "subprocess", "sys", "runpy", "importlib", "socket", "shutil", "pty", "io", "_io")


@dataclass(frozen=True)
class Outcome:
    kind: str
    seed: int
    ended: str
    """"accepted", "refused", "exit 0", ...; of a find "trace", "hang", ..."""
    seconds: float
    peak_mib: float
    find: str = ""
    """What went wrong, and where; empty: nothing."""


class WatchedProcess:
    """Runs cases one after the other; to be closed. `valid`: a folder that `valid_inputs` filled.

    Use `kinds` to name others than those of `tests.fuzz.kinds`: a module with a dict KINDS.
    """

    def __init__(self, valid: Path, kinds: str = "tests.fuzz.kinds", longest_s: float = LONGEST_S) -> None:
        self._valid, self._kinds, self.longest_s = valid, kinds, longest_s
        self._process: Any = None
        self._here: Connection
        self._cases = 0

    def run(self, kind: str, seed: int) -> Outcome:
        if self._process is None or self._cases >= _PER_PROCESS:
            self.close()
            self._start()
        self._cases += 1
        self._here.send((kind, seed))
        if not self._here.poll(self.longest_s):
            stack = self._stack()
            self.close()
            return Outcome(kind, seed, "hang", self.longest_s, 0, f"no end within {self.longest_s:g} s\n{stack}")
        try:
            return self._here.recv()
        except EOFError:
            self._process.join(5)
            code = self._process.exitcode
            self.close()
            return Outcome(kind, seed, "crash", 0, 0, f"the process ended with {code}")

    def close(self) -> None:
        if self._process is not None:
            self._here.close()
            self._process.kill()
            self._process.join()
            shutil.rmtree(self._work, ignore_errors=True)
            self._process = None

    def __enter__(self) -> "WatchedProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self._kinds])  # imports once, for all processes
        self._work = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self._here, there = context.Pipe()
        arguments = (there, self._kinds, str(self._valid.resolve()), str(self._work))
        process = context.Process(target=_serve, args=arguments)
        process.start()
        self._process = process
        there.close()
        self._here.recv()  # ready
        self._cases = 0

    def _stack(self) -> str:
        """Where it hangs."""
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGUSR1)
            self._process.join(1)
            return (self._work / "stack").read_text(errors="replace")
        return ""


# In the process


def _serve(pipe: Connection, kinds: str, valid: str, work: str) -> None:
    from importlib import import_module

    import torch

    os.setsid()
    torch.set_num_threads(1)
    os.environ |= {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "COLUMNS": "100", "HOME": work}
    os.environ["TMPDIR"] = tempfile.tempdir = work
    cases = import_module(kinds).KINDS
    from tests.fuzz.command_lines import stop_before_long_work

    stop_before_long_work()
    stack = open(Path(work) / "stack", "w")  # noqa: SIM115  # stays open: a signal writes into it
    faulthandler.register(signal.SIGUSR1, stack)
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    started: list[str] = []
    allowed = (os.path.realpath(work), "/dev/null", f"/proc/{os.getpid()}/clear_refs")
    sys.addaudithook(lambda event, arguments: _audit(started, allowed, event, arguments))
    output = os.open(Path(work) / "output", os.O_RDWR | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    pipe.send("ready")
    while True:
        try:
            kind, seed = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(cases, kind, seed, Path(valid), Path(work), started, output))


def _outcome(cases: Any, kind: str, seed: int, valid: Path, work: Path, started: list[str], output: int) -> Outcome:
    import time

    folder = work / "case"
    folder.mkdir()
    os.chdir(folder)
    os.ftruncate(output, 0)
    os.lseek(output, 0, os.SEEK_SET)
    started.clear()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    began = time.monotonic()
    find = ""
    try:
        returned = cases[kind](random.Random(f"{kind} {seed}"), valid)
        ended = f"exit {returned}" if isinstance(returned, int) else "accepted"
        if isinstance(returned, int) and returned not in (0, 1, 2, 141):
            find = f"exit status {returned}"
    except BaseException as error:
        if _is_input_error(error):
            ended = "refused"
        else:
            ended, find = "trace", traceback.format_exc()
    seconds = time.monotonic() - began
    sys.stdout.flush()
    sys.stderr.flush()
    os.lseek(output, 0, os.SEEK_SET)
    printed = os.read(output, 200_000).decode("utf-8", "replace")
    peak = _peak_mib()
    if not find and "Traceback (most recent call last)" in printed:
        ended, find = "trace", "printed a trace"
    if not find and "MemoryError" in printed:
        ended, find = "memory", "ran out of memory"
    if not find and started:
        ended, find = "code", f"started {started[:3]}"
    if not find and any(folder.rglob("executed")):
        ended, find = "code", "a pickle in a file was executed"
    if not find and peak > MOST_MIB:
        ended, find = "memory", f"{peak:.0f} MiB"
    if find:
        find = f"{find}\n{printed[-3000:]}"
    os.chdir(work)
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(kind, seed, ended, seconds, peak, find)


def _is_input_error(error: BaseException) -> bool:
    from botformer.errors import InputError

    return isinstance(error, InputError)


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _audit(started: list[str], allowed: tuple[str, ...], event: str, arguments: tuple[Any, ...]) -> None:
    """Note what a file started, and keep what is written in the folder of the case, whoever runs the fuzzer."""
    for path in _written(event, arguments):
        if not any(path == place or path.startswith(f"{place}/") for place in allowed):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    if event in _STARTS_CODE:
        started.append(f"{event} {arguments[:2]!r:.200}")
    elif (event in _CONNECTS and not _is_local(event, arguments)) or (
        event == "pickle.find_class" and str(arguments[0]).partition(".")[0] in _UNPICKLES
    ):
        started.append(f"{event} {arguments!r:.200}")


def _written(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """The paths that an event would change."""
    if event == "open":
        _, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) if isinstance(flags, int) else 0
        places, resolve = (0,) if writes or set(mode or "") & set("wax+") else (), os.path.realpath
    elif event in _CHANGES:
        places, resolve = (0,), os.path.realpath
    else:
        places, resolve = _CHANGES_NAMES.get(event, ()), _with_real_folder
    paths = [arguments[place] for place in places]
    return [resolve(os.fsdecode(path)) for path in paths if isinstance(path, str | bytes | os.PathLike)]


def _with_real_folder(path: str) -> str:
    """A link itself, rather than what it leads to."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _is_local(event: str, arguments: tuple[Any, ...]) -> bool:
    """A socket of the file system."""
    return event == "socket.connect" and not isinstance(arguments[1], tuple)
