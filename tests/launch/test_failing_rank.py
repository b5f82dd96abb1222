"""What people see, and what a cluster is told, when one of several processes fails."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from botformer.rank_failure import LOST, describe_loss, lost_another_process
from botformer.training.signals import stop_request

from .colours import ROOT, environment, train_command, write_colours

GLOO = (
    "[/somewhere/gloo/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:14258: Connection reset by peer. This is "
    "typically caused by a remote worker hanging"
)


def torchrun(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "botformer.torchrun", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*launcher, *command], cwd=ROOT, env=environment() | variables, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status", "said"),
    [("input", 2, "botformer train: rank 1: its disk is full"), ("killed", 137, "Signal 9 (SIGKILL) received by PID")],
)
def test_the_rank_that_fails_is_the_root_cause_and_the_other_one_is_silent(how, status, said, tmp_path: Path) -> None:
    data = write_colours(tmp_path / "data")
    command = train_command(data, tmp_path / "run", steps=10_000)
    done = torchrun("tests/launch/failing_rank.py", *command, FAIL=f"1:7:{how}", FAILED_AT=str(tmp_path / "failed"))
    assert time.time() - (tmp_path / "failed").stat().st_mtime < 60
    assert done.returncode == status, done.stderr
    root_cause = done.stderr.partition("Root Cause")[2]
    assert re.search(rf"rank +: 1 .*traceback : {re.escape(said)}", root_cause, re.DOTALL)
    assert "Traceback" not in done.stderr
    assert "Connection" not in done.stderr


@pytest.mark.slow
def test_ranks_with_different_classes_do_not_train(tmp_path: Path) -> None:
    """As many classes and images, so that without a comparison they would train on to exit 0."""
    data, other = write_colours(tmp_path / "data"), write_colours(tmp_path / "other")
    for split in ("train", "validation"):
        (other / split / "red").rename(other / split / "yellow")
    command = train_command(data, tmp_path / "run", steps=3)
    done = torchrun("tests/launch/failing_rank.py", *command, FAIL="1:0:data", OTHER_DATA=str(other))
    assert done.returncode == 2, done.stderr
    root_cause = done.stderr.partition("Root Cause")[2]
    assert "the 2 processes of this run were not given the same" in root_cause
    assert re.search(
        r"classes: 3 \(blue, green, red; \w+\) on rank 0; 3 \(blue, green, yellow; \w+\) on rank 1", root_cause
    )
    assert re.search(r"training images: 60 \(\w+\) on rank 0; 60 \(\w+\) on rank 1", root_cause)
    assert not (tmp_path / "run").exists()


def test_what_all_ranks_complain_of_is_said_once() -> None:
    done = torchrun("-m", "botformer.cli", "train", "no_such_recipe")
    assert done.returncode == 2
    before, _, root_cause = done.stderr.partition("Root Cause")
    assert before.count("unknown recipe 'no_such_recipe'") == 1
    assert "botformer train: rank 0: unknown recipe 'no_such_recipe'" in root_cause


def test_torchrun_may_repeat_a_cluster_s_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm may signal every process of a job, and torchrun hands its own on: one stop, not two."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    with stop_request() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.signal == signal.SIGTERM


def test_only_an_exchange_that_broke_is_taken_for_the_end_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import distributed

    lost = [
        RuntimeError(GLOO),
        distributed.DistNetworkError("gone"),
        distributed.DistBackendError("ncclRemoteError: x"),
    ]
    own = [RuntimeError("shape mismatch"), ValueError(GLOO), distributed.DistBackendError("ncclInvalidUsage: x")]
    assert not any(map(lost_another_process, lost)), "one process has no other"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert all(map(lost_another_process, lost))
    assert not any(map(lost_another_process, own))
    assert "(Read error [127.0.0.1]:14258: Connection reset by peer)" in describe_loss(lost[0])
    assert LOST not in (0, 1, 2)
