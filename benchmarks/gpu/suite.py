"""A suite of `botformer benchmark` within a time limit: goes on where an earlier call ended.

python -m benchmarks.gpu.suite attention|model|headline|detection --results DIR --seconds S [--quick]

Without CUDA it runs on the CPU. Exit status: 0 all cases are done, 75 there is more to do. Results that were wrong are
rows of the receipt, and lines on stderr.
"""

import logging
import os
import sys

import torch

from benchmarks.gpu.choose_backends import write_choice
from benchmarks.gpu.step_arguments import COMMAND, MORE_TO_DO, Clock, step_parser
from botformer.benchmark.run_suite import TITLES, run_suite

LEAVING_S = 15
"""For imports, the chart, and leaving."""
RESTART_S = 60
"""After an error of CUDA a new process goes on if so many seconds are left."""


def main() -> int:
    parser = step_parser(__doc__)
    parser.add_argument("suite", choices=TITLES)
    given = parser.parse_args()
    clock = Clock(given.seconds)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = ["--quick"] if given.quick else []
    result = run_suite(
        given.suite,
        "auto",
        given.results,
        COMMAND,
        minutes=max(given.seconds - LEAVING_S, 1) / 60,
        quick=given.quick,
        resume=True,
        on_rows=_print_rows,
    )
    for fault in result.faults:
        print(fault, file=sys.stderr)
    if result.device_lost and result.left and clock.left > RESTART_S:
        print("the device is unusable for this process; a new one goes on", file=sys.stderr, flush=True)
        _restart([given.suite, "--results", str(given.results), "--seconds", f"{clock.left:.0f}", *options])
    if result.left:
        return MORE_TO_DO
    if given.suite == "attention" and (given.quick or torch.cuda.is_available()):
        print(write_choice(result.receipt, given.results, given.quick).name)
    return 0


def _print_rows(rows: list[dict[str, object]]) -> None:
    for row in rows:
        print(", ".join(f"{value}" for value in row.values()), flush=True)


def _restart(arguments: list[str]) -> None:
    """This process becomes a new one, which keeps nothing of the device."""
    sys.stdout.flush()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu.suite", *arguments])


if __name__ == "__main__":
    sys.exit(main())
