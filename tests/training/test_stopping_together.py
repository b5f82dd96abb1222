"""Several processes: what happens to one of them stops all after the same step, with a checkpoint."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from botformer.errors import InputError
from botformer.training.checkpoint import checkpoint_folder
from botformer.training.loop import fit
from tests.fork_server import start_process
from tests.training.toy import ToyBatches, toy_evaluation, toy_recipe, toy_task

PROCESSES, RANK, STEP = 2, 1, 5


class Disturbed(ToyBatches):
    """On one rank something happens while the batch of a step is fetched."""

    def __init__(self, rank: int, what: str):
        super().__init__(rank=rank, processes=PROCESSES)
        self.what = what if rank == RANK else ""

    def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
        for batch in super().starting_at(step):
            if step == STEP and self.what == "error":
                raise InputError("the disk with the images is gone")
            if step == STEP and self.what:
                os.kill(os.getpid(), signal.Signals[self.what])
            yield batch
            step += 1


def train(rank: int, port: int, what: str, out: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    PartialState._reset_state()  # forked along with the process
    recipe = toy_recipe(run={"max_steps": 12})
    batches, evaluation = Disturbed(rank, what), toy_evaluation(rank, PROCESSES)
    try:
        fit(toy_task("convolutional"), batches, evaluation, recipe, out)
    except InputError as error:
        (out / f"said-by-{rank}.txt").write_text(str(error))
        raise SystemExit(2) from None


def in_processes(what: str, out: Path) -> list[int | None]:
    """Their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [start_process(train, rank, port, what, out) for rank in range(PROCESSES)]
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def bits(out: Path) -> dict[str, bytes]:
    folder = checkpoint_folder(out)
    assert folder is not None
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert in_processes("", out) == [0, 0]
    return bits(out)


@pytest.mark.parametrize(("what", "own", "others"), [("SIGTERM", 143, 143), ("SIGUSR1", 138, 143), ("error", 2, 2)])
def test_one_rank_stops_all_of_them_after_the_same_step(
    tmp_path: Path, undisturbed: dict[str, bytes], what: str, own: int, others: int
) -> None:
    assert in_processes(what, tmp_path) == [others, own]
    folder = checkpoint_folder(tmp_path)
    assert folder is not None
    assert folder.name == f"step-{STEP:08d}"
    if what == "error":
        assert (tmp_path / "said-by-1.txt").read_text() == "the disk with the images is gone"
        assert "saved after step 5" in (tmp_path / "said-by-0.txt").read_text()
    assert in_processes("", tmp_path) == [0, 0]
    assert bits(tmp_path) == undisturbed
