"""`botformer ...` in which one rank fails in one of its steps, as FAIL says: RANK:STEP:HOW. FAILED_AT: a file written
then. HOW data: it is given OTHER_DATA."""

import os
import signal
import sys
from pathlib import Path

from botformer import cli
from botformer.errors import InputError
from botformer.training.train_step import TrainState

rank, at_step, how = os.environ["FAIL"].split(":")
steps = iter(range(1, 10**9))
step = TrainState.step


def failing_step(self, batch, learning_rate):
    if next(steps) == int(at_step):
        Path(os.environ["FAILED_AT"]).touch()
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise InputError("its disk is full")
    return step(self, batch, learning_rate)


if os.environ["RANK"] == rank and how == "data":
    sys.argv.append(f"--data={os.environ['OTHER_DATA']}")  # the last one counts
elif os.environ["RANK"] == rank:
    TrainState.step = failing_step
sys.exit(cli.main())
