import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from botformer.commands.demo_second_process import second_process
from botformer.errors import InputError


def numbers(first: int) -> Iterator[int]:
    print("one is coming", flush=True)
    yield first
    print("and two", file=sys.stderr, flush=True)
    yield first + 1


def refused() -> Iterator[int]:
    yield 1
    raise InputError("no such package")


def broken() -> Iterator[int]:
    yield 1
    raise RuntimeError("out of luck")


def patient(folder: Path) -> Iterator[int]:
    """Stops as a training run does: at the signal, after what it is at."""

    def stop(number: int, frame: object) -> None:
        (folder / "stopped").write_text(str(number))
        raise SystemExit

    signal.signal(signal.SIGTERM, stop)
    (folder / "pid").write_text(str(os.getpid()))
    yield 1
    time.sleep(300)
    yield 2


def test_what_it_yields_comes_one_by_one_and_what_it_prints_is_in_the_log(tmp_path: Path, capfd) -> None:
    log = tmp_path / "a" / "log.txt"
    with second_process(numbers, 1, log=log) as next_result:
        assert [next_result(), next_result()] == [1, 2]
    assert log.read_text().splitlines() == ["one is coming", "and two"]
    assert capfd.readouterr() == ("", "")


def test_its_input_error_is_raised_here(tmp_path: Path) -> None:
    with second_process(refused, log=tmp_path / "log.txt") as next_result:
        assert next_result() == 1
        with pytest.raises(InputError, match="no such package"):
            next_result()


def test_a_failure_is_said_with_the_end_of_the_log(tmp_path: Path) -> None:
    with second_process(broken, log=tmp_path / "log.txt") as next_result:
        assert next_result() == 1
        with pytest.raises(InputError, match=r"log\.txt(?s:.*)out of luck"):
            next_result()


def test_who_leaves_early_asks_it_to_stop_and_waits(tmp_path: Path) -> None:
    with second_process(patient, tmp_path, log=tmp_path / "log.txt") as next_result:
        assert next_result() == 1
    assert (tmp_path / "stopped").read_text() == str(int(signal.SIGTERM))
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_it_stops_where_the_first_process_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from botformer.commands.demo_second_process import second_process\n"
        "from tests.commands.test_demo_second_process import patient\n"
        "if __name__ == '__main__':\n"
        "    folder = pathlib.Path(sys.argv[1])\n"
        "    with second_process(patient, folder, log=folder / 'log.txt') as next_result:\n"
        "        next_result()\n"
        "        os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False, timeout=60)
    until = time.monotonic() + 30
    while not (tmp_path / "stopped").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert (tmp_path / "stopped").exists()
