"""Network namespaces as machines: each has an address of its own, and all are joined by a bridge."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def why_not() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if not shutil.which("ip"):
        return "`ip` (Debian's iproute2) is not installed"
    name = f"bf{os.getpid()}-try"
    made = _ip("netns", "add", name, check=False)
    _ip("netns", "delete", name, check=False)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else ""


class Machine:
    """One namespace, and the processes in it."""

    def __init__(self, name: str, address: str, log: Path) -> None:
        self.name, self.address, self.log = name, address, log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                env=environment | {"ADDRESS": self.address, "GLOO_SOCKET_IFNAME": "eth0"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def pids(self) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.name, check=False).stdout.split()]

    def kill(self) -> None:
        """All processes of the machine at once."""
        for _ in range(100):
            pids = self.pids()
            if not pids:
                break
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        if self.process:
            self.process.wait(timeout=10)

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def status(self) -> int | None:
        return self.process.returncode if self.process else None

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextmanager
def machines(count: int, logs: Path) -> Iterator[list[Machine]]:
    """`count` machines, 10.77.0.1 and following. At the end nothing of them is left, whatever happened."""
    switch = f"bf{os.getpid()}-switch"
    made = [Machine(f"bf{os.getpid()}-{n}", f"10.77.0.{n}", logs / f"machine-{n}.log") for n in range(1, count + 1)]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for number, machine in enumerate(made):
            _ip("netns", "add", machine.name)
            plug = f"port{number}"
            _ip("-n", switch, "link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
            _ip("-n", switch, "link", "set", plug, "master", "bridge", "up")
            _ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", "eth0")
            _ip("-n", machine.name, "link", "set", "eth0", "up")
            _ip("-n", machine.name, "link", "set", "lo", "up")
        yield made
    finally:
        for machine in made:
            machine.kill()
        for name in (*(machine.name for machine in made), switch):
            _ip("netns", "delete", name, check=False)


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=check, timeout=20)
