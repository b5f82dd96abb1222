"""Runs in processes of their own: killed at any moment, and several at once."""

from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from botformer.training.distributed import open_accelerator
from botformer.training.loop import fit
from botformer.training.run_log import read_metrics
from tests.fork_server import launch, start_process
from tests.training.test_loop import STOPWATCH
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task

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
    launch(2, share_of_a_run, out)


def test_two_processes_give_the_losses_and_metrics_of_one(tmp_path: Path) -> None:
    fit(toy_task(), ToyBatches(), toy_evaluation(), ONE_AND_TWO, tmp_path / "one")
    both = start_process(torchrun, tmp_path / "two")
    both.join()
    assert both.exitcode == 0
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [(r["kind"], r["step"]) for r in one] == [(r["kind"], r["step"]) for r in two]
    for ours, peer in zip(one, two, strict=True):
        for name in ours.keys() - {*STOPWATCH, "kind"}:
            assert peer[name] == pytest.approx(ours[name], rel=1e-4), (ours["step"], name)
