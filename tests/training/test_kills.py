"""SIGKILL at random moments: the same command gives the bits of an undisturbed run."""

import random
from pathlib import Path

import pytest

from tests.training.killed_runs import JOBS, bits, run_and_kill


@pytest.mark.parametrize("job", sorted(JOBS))
def test_killed_runs_end_with_the_bits_of_an_undisturbed_one(tmp_path: Path, job: str) -> None:
    """Five kills, one of which while a checkpoint is written; `benchmarks/kills.py` makes a hundred."""
    if job == "detection":
        pytest.importorskip("faster_coco_eval")
    write, program = JOBS[job]
    write(tmp_path / "data")
    outcome = run_and_kill(program, tmp_path / "data", tmp_path, 5, 1, random.randrange(2**32), bits)
    assert not outcome.differences, outcome
    assert outcome.kills == 5
    assert outcome.in_a_write >= 1
    assert outcome.same == outcome.runs >= 1
