"""Runs in processes of their own: killed at any moment, and several at once."""

import random
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from botformer.training.checkpoint import checkpoint_folder, read_state, step_of
from botformer.training.distributed import open_accelerator
from botformer.training.loop import fit
from botformer.training.run_log import read_metrics
from tests.training.test_loop import STOPWATCH, assert_same_end
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task


def quick_saves(out: Path) -> None:
    """A run that writes a checkpoint every other step, and hardly does anything else."""
    torch.set_num_threads(1)
    recipe = toy_recipe(schedule={"epochs": 60}, optimizer={"ema": 0.9}, run={"evaluate_every": 60})
    fit(toy_task("convolutional"), ToyBatches(steps_per_epoch=2), toy_evaluation(), recipe, out)


def in_child(program: Callable[[Path], None], out: Path) -> BaseProcess:
    # Forked from a server, which has imported torch once and run nothing: autograd threads, which other tests may have
    # started in this process, would not survive a fork of it.
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=program, args=(out,))
    process.start()
    return process


def last_step(out: Path) -> int:
    folder = checkpoint_folder(out)
    return (step_of(folder) or 0) if folder else 0


def test_run_that_is_killed_at_any_moment_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = in_child(quick_saves, tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    out = tmp_path / "killed"
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    unfinished = 0
    for _ in range(5):
        run, before, deadline = in_child(quick_saves, out), last_step(out), time.monotonic() + 60
        while last_step(out) == before and run.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)  # it should come past its last checkpoint, or no run would ever end
        time.sleep(moments.uniform(0.0, 0.05))
        run.kill()
        run.join()
        assert run.exitcode == -9, f"the run ended before it was killed (seed {seed})"
        folder = checkpoint_folder(out)
        assert folder is not None
        assert read_state(folder).step > before, f"seed {seed}"
        unfinished += len(list((out / "checkpoints").glob(".*")))
    final = in_child(quick_saves, out)
    final.join()
    assert final.exitcode == 0, f"seed {seed}"
    assert_same_end(tmp_path / "whole", out)
    assert not list((out / "checkpoints").glob(".*")), f"{unfinished} kills left something (seed {seed})"


ONE_AND_TWO = toy_recipe(optimizer={"ema": 0.9, "clip_norm": 1.0}, run={"accumulation": 2, "max_steps": 10})


def share_of_a_run(out: Path) -> None:
    torch.set_num_threads(1)
    PartialState._reset_state()  # forked along with the process
    state = PartialState(cpu=True)
    rank, processes = state.process_index, state.num_processes
    assert processes == 2
    assert open_accelerator(ONE_AND_TWO.run).of_main_process({"rank": rank}) == {"rank": 0}
    task = toy_task(seed=rank)  # only the first process's weights may count
    fit(task, ToyBatches(rank=rank, processes=processes), toy_evaluation(rank, processes), ONE_AND_TWO, out)


def torchrun(out: Path) -> None:
    """What `torchrun --standalone --nproc-per-node 2` does, but forking: see `in_child`."""
    config = LaunchConfig(
        1, 1, 2, max_restarts=0, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork"
    )
    elastic_launch(config, share_of_a_run)(out)


def test_two_processes_give_the_losses_and_metrics_of_one(tmp_path: Path) -> None:
    fit(toy_task(), ToyBatches(), toy_evaluation(), ONE_AND_TWO, tmp_path / "one")
    both = in_child(torchrun, tmp_path / "two")
    both.join()
    assert both.exitcode == 0
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [(r["kind"], r["step"]) for r in one] == [(r["kind"], r["step"]) for r in two]
    for ours, peer in zip(one, two, strict=True):
        for name in ours.keys() - {*STOPWATCH, "kind"}:
            assert peer[name] == pytest.approx(ours[name], rel=1e-4), (ours["step"], name)
