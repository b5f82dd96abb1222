"""The arguments that every step takes, and its clock."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

COMMAND = "make gpu"
"""Of receipts: a step alone needs what the runner gives it."""
MORE_TO_DO = 75
"""The exit status of a step that stopped because its seconds were used (EX_TEMPFAIL)."""


class Clock:
    """What is left of a step's seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self.end - time.monotonic()


def leave_at_once(status: int) -> NoReturn:
    """End without waiting for processes and threads that this one started; the runner ends those."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def step_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder for receipts, and for those to go on from")
    parser.add_argument(
        "--seconds", type=float, required=True, help="end by itself within these; exit status 75: more to do"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see on a CPU that everything runs")
    return parser
