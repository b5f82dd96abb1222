"""Signals at random moments: the same command gives the bits of an undisturbed run."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from botformer.training.checkpoint import checkpoint_folder
from botformer.training.run_log import read_metrics
from tests.training.killed_runs import (
    JOBS,
    bits,
    classify_with_a_worker,
    run_and_kill,
    start,
    unfinished,
    write_colours,
)


@pytest.mark.parametrize("job", sorted(JOBS))
def test_killed_runs_end_with_the_bits_of_an_undisturbed_one(tmp_path: Path, job: str) -> None:
    """Five kills, one of which while a checkpoint is written; `benchmarks/kills.py` makes a hundred."""
    if job == "detection":
        pytest.importorskip("faster_coco_eval")
    write, program = JOBS[job]
    write(tmp_path / "data")
    outcome = run_and_kill(program, tmp_path / "data", tmp_path, 5, 1, random.randrange(2**32), bits, unfinished)
    assert not outcome.differences, outcome
    assert outcome.kills == 5
    assert outcome.in_a_write >= 1
    assert outcome.same == outcome.runs >= 1


def test_jobs_that_are_stopped_with_all_their_processes_save_each_step(tmp_path: Path) -> None:
    """Slurm, Docker and systemd send the signal to every process, those that read images included."""
    program = classify_with_a_worker
    write_colours(tmp_path / "data")
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    undisturbed = start(program, tmp_path / "data", whole)
    undisturbed.join()
    assert undisturbed.exitcode == 0
    for number, sig in enumerate([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT], start=1):
        run = start(program, tmp_path / "data", out)
        wait_for_step(out, 5 * number, run)
        assert run.pid
        os.killpg(run.pid, sig)
        run.join(60)
        assert run.exitcode == 128 + sig, (tmp_path / "stopped.log").read_text()
        folder = checkpoint_folder(out)
        assert folder is not None
        steps = [record["step"] for record in read_metrics(out / "metrics.jsonl")]
        assert folder.name == f"step-{steps[-1]:08d}"
    last = start(program, tmp_path / "data", out)
    last.join()
    assert last.exitcode == 0
    assert bits(out) == bits(whole)


def wait_for_step(out: Path, step: int, run: object) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / "metrics.jsonl").exists():
            records = read_metrics(out / "metrics.jsonl")
            if records and records[-1]["step"] >= step:
                return
        time.sleep(0.01)
    pytest.fail(f"step {step} was not reached: {out.with_name('stopped.log').read_text()}")
