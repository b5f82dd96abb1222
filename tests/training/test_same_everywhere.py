"""Processes that were given different things end before anything starts, all with one message."""

from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from botformer.errors import InputError
from botformer.training.distributed import open_accelerator
from botformer.training.same_everywhere import check_same_everywhere
from tests.fork_server import launch, start_process
from tests.training.toy import toy_recipe

OURS = {"classes": "3 (blue, green, red)", "training images": "60 (ab12)", "run.batch_size": "12"}


def compare(out: Path) -> None:
    torch.set_num_threads(1)
    PartialState._reset_state()  # forked along with the process
    accelerator = open_accelerator(toy_recipe().run)
    rank = accelerator.process_index
    check_same_everywhere(accelerator, OURS)
    theirs = OURS if rank == 0 else {"classes": "3 (blue, green, yellow)", "run.batch_size": "12", "more": "1"}
    with pytest.raises(InputError) as raised:
        check_same_everywhere(accelerator, theirs)
    (out / f"{rank}.txt").write_text(str(raised.value))


def two_processes(out: Path) -> None:
    launch(2, compare, out)


def test_every_process_says_which_ranks_differ_in_what(tmp_path: Path) -> None:
    both = start_process(two_processes, tmp_path)
    both.join(timeout=120)
    assert both.exitcode == 0
    messages = [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)]
    assert messages[0] == messages[1]
    assert "classes: 3 (blue, green, red) on rank 0; 3 (blue, green, yellow) on rank 1" in messages[0]
    assert "training images: 60 (ab12) on rank 0; nothing on rank 1" in messages[0]
    assert "more: nothing on rank 0; 1 on rank 1" in messages[0]
    assert "batch_size" not in messages[0]


def test_one_process_is_compared_with_nobody() -> None:
    check_same_everywhere(open_accelerator(toy_recipe().run), OURS)
