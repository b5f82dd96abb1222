"""`botformer ...` in which one rank fails in a step of its first attempt, as FAIL says: RANK:STEP:HOW."""

import os
import signal
import sys

from botformer import cli
from botformer.errors import InputError
from botformer.training.train_step import TrainState

rank, at_step, how = os.environ["FAIL"].split(":")
steps = iter(range(1, 10**9))
step = TrainState.step


def failing_step(self, batch, learning_rate):
    if next(steps) == int(at_step):
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise InputError("its disk is full") if how == "input" else AttributeError("a mistake of ours")
    return step(self, batch, learning_rate)


if os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    TrainState.step = failing_step
sys.exit(cli.main())
