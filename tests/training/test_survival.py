"""What happens to a run in which something goes wrong, and what is left of it."""

import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from botformer.errors import InputError
from botformer.training.checkpoint import checkpoint_folder, read_state
from botformer.training.loop import fit
from botformer.training.run_lock import LOCK, check_unlocked, run_lock
from botformer.training.run_log import read_metrics
from botformer.training.signals import Interrupted
from tests.fork_server import start_process
from tests.training.test_loop import assert_same_end, run
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botformer.training.run_log.FileRunLog.draw", lambda self: None)


def steps_of(out: Path) -> list[int]:
    return sorted(int(folder.name[5:]) for folder in (out / "checkpoints").glob("step-*"))


# Data and evaluation


class Failing(ToyBatches):
    """Batches until that of step `at`, and then an error."""

    def __init__(self, at: int, error: Exception):
        super().__init__()
        self.at, self.error = at, error

    def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
        for batch in super().starting_at(step):
            if step == self.at:
                raise self.error
            yield batch
            step += 1


@pytest.mark.parametrize("at", [1, 5, 8, 11])
@pytest.mark.parametrize("error", [RuntimeError("DataLoader worker exited"), InputError("bad"), OSError("gone")])
def test_loader_that_fails_costs_no_step(tmp_path: Path, at: int, error: Exception) -> None:
    run(tmp_path / "whole", toy_recipe(), "convolutional")
    with pytest.raises(type(error), match=str(error)):
        run(tmp_path / "parts", toy_recipe(), "convolutional", Failing(at, error))
    assert steps_of(tmp_path / "parts")[-1] == at
    run(tmp_path / "parts", toy_recipe(), "convolutional")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def test_signal_while_the_loader_hangs_is_obeyed(tmp_path: Path) -> None:
    class Hanging(ToyBatches):
        def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
            for number, batch in enumerate(super().starting_at(step)):
                if number == 3:
                    signal.setitimer(signal.ITIMER_REAL, 0.2)
                    time.sleep(60)
                yield batch

    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        began = time.monotonic()
        with pytest.raises(Interrupted):
            run(tmp_path, toy_recipe(), batches=Hanging())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 30
    assert steps_of(tmp_path)[-1] == 3


class FailingEvaluation(list[Any]):
    def __init__(self, act: Any):
        super().__init__(toy_evaluation())
        self.act = act

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(super().__iter__()):
            if number == 1:
                self.act()
            yield batch


def no_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize("what", ["error", "signal"])
def test_evaluation_that_fails_or_is_stopped_costs_no_step(tmp_path: Path, what: str) -> None:
    run(tmp_path / "whole", toy_recipe(), "convolutional")
    failing = FailingEvaluation(no_memory if what == "error" else lambda: signal.raise_signal(signal.SIGUSR1))
    with pytest.raises(InputError if what == "error" else Interrupted):
        fit(toy_task("convolutional"), ToyBatches(), failing, toy_recipe(), tmp_path / "parts")
    assert steps_of(tmp_path / "parts") == [4]
    assert read_metrics(tmp_path / "parts" / "metrics.jsonl")[-1]["kind"] == "train"
    run(tmp_path / "parts", toy_recipe(), "convolutional")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("what", ["images", "names_sha256", "targets_sha256", "annotations_sha256"])
def test_other_data_are_refused(tmp_path: Path, what: str) -> None:
    run(tmp_path, toy_recipe(run={"max_steps": 4}))
    other = ToyBatches()
    other.data = other.data | {what: 12 if what == "images" else "other"}
    expected = {"images": "began with 32 training images, now there are 12", "names_sha256": "other names"}
    with pytest.raises(InputError, match=expected.get(what, "labels or boxes have changed")):
        run(tmp_path, toy_recipe(), batches=other)
    run(tmp_path, toy_recipe())


# Longer runs, and more checkpoints


def test_run_is_extended_from_where_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, toy_recipe())
    longer = toy_recipe(schedule={"epochs": 5})
    with pytest.raises(InputError, match="add --extend"):
        run(tmp_path, longer)
    run(tmp_path, longer, extend=True)
    assert steps_of(tmp_path)[-1] == 20
    records = [record for record in read_metrics(tmp_path / "metrics.jsonl") if record["kind"] == "train"]
    assert [record["step"] for record in records] == list(range(1, 21))
    run(tmp_path / "other", longer)
    others = [record for record in read_metrics(tmp_path / "other" / "metrics.jsonl") if record["kind"] == "train"]
    assert [record["lr"] for record in records[12:]] == [record["lr"] for record in others[12:]]
    assert "extended: of another length since step 12" in capsys.readouterr().err
    run(tmp_path, longer)  # from now on it is a run of this length


def test_checkpoints_by_steps_and_by_minutes_change_no_result(tmp_path: Path) -> None:
    run(tmp_path / "whole", toy_recipe(run={"keep": 99}))
    run(tmp_path / "steps", toy_recipe(run={"keep": 99, "checkpoint_every_steps": 3}))
    run(tmp_path / "minutes", toy_recipe(run={"keep": 99, "checkpoint_every_minutes": 1e-9}))
    assert steps_of(tmp_path / "whole") == [4, 8, 12]
    assert steps_of(tmp_path / "steps") == [3, 4, 6, 8, 9, 12]
    assert steps_of(tmp_path / "minutes") == list(range(1, 13))
    assert_same_end(tmp_path / "whole", tmp_path / "steps")
    assert_same_end(tmp_path / "whole", tmp_path / "minutes")


# Two runs


def hold(out: Path, ready: Any) -> None:
    with run_lock(out):
        ready.set()
        time.sleep(60)


def test_second_run_is_refused_with_the_first_ones_process_and_a_killed_one_locks_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ready = get_context("forkserver").Event()
    first = start_process(hold, tmp_path, ready)
    assert ready.wait(60)
    with pytest.raises(InputError, match=rf"another run writes into .*: host .*, process {first.pid}, since 20"):
        run(tmp_path, toy_recipe())
    with pytest.raises(InputError, match="another run"):
        check_unlocked(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    first.kill()
    first.join()
    check_unlocked(tmp_path)
    caplog.set_level(logging.INFO)
    run(tmp_path, toy_recipe(run={"max_steps": 1}))
    assert f"process {first.pid}" in caplog.text
    caplog.clear()
    run(tmp_path, toy_recipe(run={"max_steps": 2}))
    assert "stale" not in caplog.text


# The folder and its disk


class Acting(ToyBatches):
    """Does something as the batch of step `at` is fetched."""

    def __init__(self, at: int, act: Any):
        super().__init__()
        self.at, self.act = at, act

    def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
        for batch in super().starting_at(step):
            if step == self.at:
                self.act()
            yield batch
            step += 1


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_folder_that_disappears_costs_no_step(tmp_path: Path, how: str) -> None:
    run(tmp_path / "whole", toy_recipe(), "convolutional")
    out = tmp_path / "out"
    act = (lambda: shutil.rmtree(out)) if how == "removed" else (lambda: out.rename(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"was removed or moved while .* a checkpoint of step 8 is there again"):
        run(out, toy_recipe(), "convolutional", Acting(6, act))
    run(out, toy_recipe(), "convolutional")
    whole, other = (checkpoint_folder(each) for each in (tmp_path / "whole", out))
    assert whole
    assert other
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert (whole / file).read_bytes() == (other / file).read_bytes()


def test_a_lock_that_was_removed_alone_is_made_again_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody took it for a stale one."""
    run(tmp_path / "whole", toy_recipe(run={"keep": 1}))
    out, refused = tmp_path / "out", []

    def check_once_more() -> None:
        with pytest.raises(InputError) as error:
            check_unlocked(out)
        refused.append(str(error.value))

    class Twice(Acting):
        def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
            for batch in super().starting_at(step):
                if step == 9:
                    check_once_more()
                yield batch
                step += 1

    run(out, toy_recipe(run={"keep": 1}), batches=Twice(6, (out / LOCK).unlink))
    assert "was removed, and is made again" in caplog.text
    assert refused[0].startswith("another run writes into")
    assert_same_end(tmp_path / "whole", out)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole" / "checkpoints").iterdir()
    )


def test_run_that_took_the_place_of_a_removed_one_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def replaced() -> None:
        shutil.rmtree(out)
        out.mkdir()
        (out / LOCK).touch()

    with pytest.raises(InputError, match="another run has begun there"):
        run(out, toy_recipe(), batches=Acting(5, replaced))
    assert [path.name for path in out.iterdir()] == [LOCK]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_full_disk_keeps_the_last_checkpoint_and_says_how_much_room_is_needed(small_disk: Path) -> None:
    recipe = toy_recipe()
    out = small_disk / "run"
    filler = small_disk / "filler"

    def fill() -> None:
        free = shutil.disk_usage(small_disk).free
        filler.write_bytes(bytes(max(0, free - 40_000)))

    with pytest.raises(InputError, match=r"step-00000008 cannot be written: .*full.* takes 1\.\d MB.* are free"):
        run(out, recipe, "convolutional", Acting(6, fill))
    assert steps_of(out) == [4]
    assert not list((out / "checkpoints").glob(".*"))
    filler.unlink()
    run(out, recipe, "convolutional")
    run(small_disk.parent / "whole", recipe, "convolutional")
    assert_same_end(small_disk.parent / "whole", out)


def test_disk_that_is_full_to_the_last_byte_is_named_too(small_disk: Path) -> None:
    out = small_disk / "run"

    def fill() -> None:
        with (small_disk / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    recipe = toy_recipe(schedule={"epochs": 400}, run={"evaluate_every": 400, "checkpoint_every": 400})
    with pytest.raises(InputError, match=r"metrics\.jsonl cannot be written: .*full"):
        run(out, recipe, batches=Acting(4, fill))
    assert read_metrics(out / "metrics.jsonl")[0]["step"] == 1
    (small_disk / "filler").unlink()
    run(out, toy_recipe())


def test_disk_that_cannot_be_written_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        run(small_disk / "run", toy_recipe())


def test_clock_that_jumps_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole", toy_recipe())
    jumps = iter([0.0, 4e9, -4e9, 1e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumps) * 1e9))
    run(tmp_path / "jumping", toy_recipe())
    assert_same_end(tmp_path / "whole", tmp_path / "jumping")
    records = [record for record in read_metrics(tmp_path / "jumping" / "metrics.jsonl") if record["kind"] == "train"]
    assert all(0 < record["images_per_s"] < 1e9 for record in records)
    state = read_state(tmp_path / "jumping" / "checkpoints" / "step-00000012")
    assert state.step == 12
