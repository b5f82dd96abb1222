"""The kit's runner: nothing that a step does stops the next one, and a later call goes on where this one stopped."""

import json
import os
import threading
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu import out_folder, runner, tables
from benchmarks.gpu.collect import collect
from benchmarks.gpu.runner import Folders, Runner
from benchmarks.gpu.steps import Step


@pytest.fixture(autouse=True)
def fake_steps(monkeypatch):
    monkeypatch.setattr(runner, "PACKAGE", "tests.gpu_kit")
    monkeypatch.setattr(runner, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(runner, "LEAST_SECONDS", 0.2)
    monkeypatch.setattr(runner, "IDLE_SECONDS", 0)


@pytest.fixture
def folders(tmp_path):
    made = Folders(tmp_path / "results", tmp_path / "work", tmp_path / "packs")
    made.results.mkdir()
    return made


def step(what, call=1, seconds=20):
    return Step(what, call, ("fake_step", what), seconds)


def new_runner(folders, *steps, after_step=lambda: None):
    return Runner(steps, folders, quick=True, after_step=after_step)


def rows(folders):
    figures = json.loads((folders.results / "kit_cpu_quick.json").read_text())["figures"]
    return {row["step"]: row for row in figures}


def runs(folders, what):
    file = folders.results / f"{what}.runs"
    return len(file.read_text()) if file.exists() else 0


def test_a_step_that_fails_dies_or_hangs_is_a_row_and_the_next_one_runs(folders):
    steps = [step("fails"), step("dies"), step("hangs", seconds=1), step("works")]
    assert not new_runner(folders, *steps).run(60)
    found = rows(folders)
    assert {name: row["status"] for name, row in found.items()} == {
        "fails": "failed",
        "dies": "failed",
        "hangs": "failed",
        "works": "done",
    }
    assert found["fails"]["message"] == "exit status 3: the reason"
    assert "-9" in found["dies"]["message"]
    child = int((folders.results / "child").read_text())
    assert _has_ended(child)


def _has_ended(pid):
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:  # ended, and not yet waited for by init
            return True
        time.sleep(0.1)
    return False


def test_a_failed_step_is_tried_once_per_call_and_three_times_in_all(folders):
    for expected in (1, 2, 3, 3):
        new_runner(folders, step("fails")).run(30)
        assert runs(folders, "fails") == expected
    assert rows(folders)["fails"]["failures"] == 3


def test_what_has_more_to_do_goes_on_after_the_others_had_their_turn_and_done_is_not_repeated(folders):
    assert new_runner(folders, step("three_times"), step("works")).run(60)
    assert (runs(folders, "three_times"), runs(folders, "works")) == (3, 1)
    assert rows(folders)["three_times"]["status"] == "done"
    assert new_runner(folders, step("three_times"), step("works")).run(60)
    assert (runs(folders, "three_times"), runs(folders, "works")) == (3, 1)


def test_a_step_that_cannot_use_what_is_left_is_not_asked_again_in_this_call(folders, monkeypatch):
    monkeypatch.setattr(runner, "IDLE_SECONDS", 10)
    for expected in (1, 2, 3):
        assert new_runner(folders, step("three_times"), step("works")).run(60) == (expected == 3)
        assert runs(folders, "three_times") == expected


def test_the_steps_of_an_earlier_call_come_first(folders):
    assert new_runner(folders, step("works", call=2), step("three_times", call=1)).run(60)
    first = (folders.results / "three_times.runs").stat().st_mtime_ns
    assert first < (folders.results / "works.runs").stat().st_mtime_ns


def test_no_step_begins_when_too_little_is_left_and_the_call_ends_within_its_seconds(folders):
    begun = time.monotonic()
    assert not new_runner(folders, step("waits", seconds=1), step("works")).run(2.5)
    assert time.monotonic() - begun < 4
    assert runs(folders, "works") == 0


def test_a_signal_ends_the_running_step_and_is_no_failure_of_it(folders):
    running = new_runner(folders, step("waits"), step("works"))
    threading.Timer(2, running.stop).start()
    begun = time.monotonic()
    assert not running.run(60)
    assert time.monotonic() - begun < 15
    assert rows(folders)["waits"]["status"] == "more"
    assert runs(folders, "works") == 0


def test_what_a_call_brings_home_is_taken_up_on_another_machine(folders, tmp_path):
    def packed():
        out_folder.pack(folders.results, tmp_path / "out")

    assert new_runner(folders, step("works"), after_step=packed).run(30)
    (folders.results / "logs/works.txt").write_bytes(b"x" * (out_folder.LOG_BYTES + 5))
    packed()
    with zipfile.ZipFile(tmp_path / "out/results.zip") as archive:
        assert archive.getinfo("logs/works.txt").file_size == out_folder.LOG_BYTES
    elsewhere = Folders(tmp_path / "elsewhere", tmp_path, tmp_path)
    elsewhere.results.mkdir()
    assert "kit_cpu_quick.json" in out_folder.unpack(tmp_path / "out", elsewhere.results)
    assert new_runner(elsewhere, step("works")).run(30)
    assert runs(elsewhere, "works") == 1  # as it came; it did not run again
    assert out_folder.unpack(tmp_path / "out", elsewhere.results) == []


def test_receipts_and_tables_that_came_home_go_into_the_repository(folders, tmp_path, monkeypatch):
    package = tmp_path / "package" / "triton_tuning.json"
    package.parent.mkdir()
    monkeypatch.setattr(tables, "TABLES", (package,))
    for name in (
        "model_gpu.json",
        "model_gpu.png",
        "model_cpu_quick.json",
        "triton_tuning.json",
        "logs/model_gpu.json",
    ):
        path = folders.results / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    out_folder.pack(folders.results, tmp_path / "out")
    target = tmp_path / "repository"
    target.mkdir()
    assert collect(tmp_path / "out", target) == ["model_gpu.json", "model_gpu.png", "triton_tuning.json"]
    assert sorted(path.name for path in target.iterdir()) == ["model_gpu.json", "model_gpu.png"]
    assert package.read_text() == "{}\n"
    with pytest.raises(SystemExit, match=r"no results\.zip"):
        collect(target, target)
