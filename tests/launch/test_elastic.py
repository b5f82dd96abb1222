"""Network namespaces as machines: what is left of a run goes on from the last checkpoint, and ends well."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .colours import ROOT, environment, train_command, write_colours
from .machines import Machine, machines, why_not

STEPS = 250


def rank_of(machine: Machine) -> tuple[int, int] | None:
    """The process that trains on this machine, and of how many it is one."""
    for pid in machine.pids():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        known = dict(variable.partition("=")[::2] for variable in variables)
        if "WORLD_SIZE" in known and b"botformer.cli" in command:
            return pid, int(known["WORLD_SIZE"])
    return None


def wait_until(what: Callable[[], bool], made: list[Machine], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        logs = "\n\n".join(f"{machine.name}\n{machine.text()[-3000:]}" for machine in made)
        assert time.monotonic() < deadline, logs
        time.sleep(0.1)


@pytest.mark.slow
def test_a_run_outlives_a_process_and_then_a_machine(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    data, out = write_colours(tmp_path / "data"), tmp_path / "run"
    command = [str(ROOT / "launch/torchrun-machines.sh"), *train_command(data, out, STEPS)]
    settings = {"RENDEZVOUS": "10.77.0.1:29400", "MACHINES": "1:4", "PROCESSES": "1", "LAST_CALL": "4"}

    def step() -> int:
        return int((out / "last").read_text().strip()[-8:]) if (out / "last").exists() else 0

    with machines(3, tmp_path) as made:
        first, second, third = made
        for machine in made:
            machine.start(command, environment() | settings | {"PYTHON": sys.executable})
        wait_until(lambda: step() > 0, made)

        before, found = step(), rank_of(third)
        assert found is not None
        assert found[1] == 3
        os.kill(found[0], signal.SIGKILL)
        wait_until(lambda: rank_of(third) not in (None, found) and step() > before + 5, made)
        assert (rank_of(first) or (0, 0))[1] == 3, "the machine started its process again"

        before = step()
        assert before < STEPS, "over too early to kill a machine"
        second.kill()
        wait_until(lambda: step() > before + 5, made)
        assert (rank_of(first) or (0, 0))[1] == 2, "two machines are left"

        wait_until(lambda: all(machine.ended() for machine in (first, third)), made)
        assert [first.status(), third.status()] == [0, 0], first.text() + third.text()
    assert first.text().count("continuing after step") == 2
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["kind"] == "train"] == list(range(1, STEPS + 1))
    last = records[-1]
    assert (last["kind"], last["step"], last["images"]) == ("evaluation", STEPS, 12)
    for machine in (first, third):
        assert "Traceback" not in machine.text()
