"""The fused kernels against float64 on this GPU: the project's own GPU tests, every outcome in a receipt.

python -m benchmarks.gpu.correctness --results DIR --seconds S    writes correctness_gpu.json
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.runner import ROOT
from benchmarks.gpu.step_arguments import MORE_TO_DO, Clock, leave_at_once, step_parser
from botformer.atomic_write import write_json
from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores

# The second file is what test_triton.py runs in the interpreter; here it runs on the device.
TESTS = (
    "tests/attention/test_triton_gpu.py",
    "tests/attention/triton_behaviour.py",
    *("-k", "not behave_on_the_device"),  # it runs the second file
)
QUICK = ("tests/attention/triton_behaviour.py", "-k", "double_loop or autocast or gradient_hook")
DIED = "the process died while it ran"
KEPT = 300
"""Characters of a failure."""


def main() -> int:
    given = step_parser(__doc__).parse_args()
    tests = QUICK if given.quick else TESTS
    recorder = Recorder(given.results, tests, Clock(given.seconds), given.quick)
    # Nearly all of the time goes into compiling, on one core per process.
    processes = ["--numprocesses", "2" if given.quick else str(cores()), "--dist", "worksteal"]
    done = [f"--deselect={case}" for case in recorder.outcomes]
    status = pytest.main(["-q", "-p", "no:cacheprovider", *processes, *done, *tests], plugins=[recorder])
    if recorder.out_of_time:
        recorder.forget_unfinished()
    recorder.write()
    if (
        not recorder.outcomes
        or status in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)
        or (status == pytest.ExitCode.INTERRUPTED and not recorder.out_of_time)
    ):
        print(f"pytest could not run the tests in {', '.join(tests)}", file=sys.stderr)
        return 1
    return MORE_TO_DO if recorder.out_of_time else 0


class Recorder:
    """A pytest plugin: notes the outcome of each test that any process runs, and stops when the time is used."""

    def __init__(self, results: Path, tests: tuple[str, ...], clock: Clock, quick: bool) -> None:
        self.tests, self.clock, self.quick = tests, clock, quick
        self.out_of_time = False
        self.session: pytest.Session | None = None
        self.receipt = results / f"correctness_{'cpu_quick' if quick else 'gpu'}.json"
        self.log = results / "logs/correctness.json"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.outcomes: dict[str, dict[str, Any]] = json.loads(self.log.read_text()) if self.log.is_file() else {}

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        # Stays if the process dies, or has to be ended, so that the next call does not begin with the same test.
        self.outcomes[nodeid] = {"outcome": "failed", "seconds": 0.0, "failure": DIED}
        write_json(self.log, self.outcomes, indent=0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        outcome: dict[str, Any] = {"outcome": report.outcome, "seconds": report.duration}
        if report.failed:
            failure = str(getattr(report.longrepr, "reprcrash", report.longrepr)).replace(f"{ROOT}/", "")
            outcome["failure"] = failure[:KEPT].replace("\n", " ")
        self.outcomes[report.nodeid] = outcome
        write_json(self.log, self.outcomes, indent=0)
        if "CUDA error" in report.longreprtext:  # nothing else runs in that process any more
            self.forget_unfinished()
            self.write()
            leave_at_once(MORE_TO_DO)
        if self.clock.left < 0 and self.session:
            self.out_of_time, self.session.shouldstop = True, "out of time"

    def forget_unfinished(self) -> None:
        """What other processes were at is done again by the next call."""
        self.outcomes = {case: one for case, one in self.outcomes.items() if one.get("failure") != DIED}
        write_json(self.log, self.outcomes, indent=0)

    def write(self) -> None:
        where = "in Triton's interpreter" if self.quick else "on the GPU"
        write_receipt(
            self.receipt,
            f"Tests of the fused attention against float64 and brute force ({where})",
            shlex.join(["pytest", *self.tests]),
            rows(self.outcomes),
            notes="One row per test; its cases are shapes, dtypes and settings. failure: the first.",
        )


def rows(outcomes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per test function; outcomes are by pytest's name of a case."""
    found: dict[str, dict[str, Any]] = {}
    for case, outcome in outcomes.items():
        name = case.partition("::")[2].partition("[")[0]
        row = found.setdefault(name, {"test": name, "cases": 0, "passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0})
        row["cases"] += 1
        row[outcome["outcome"]] += 1
        row["seconds"] = round(row["seconds"] + outcome["seconds"], 1)
        if "failure" in outcome and "failure" not in row:
            row["failure"] = f"{case.partition('[')[2].rstrip(']')}: {outcome['failure']}".lstrip(": ")
    return list(found.values())


if __name__ == "__main__":
    sys.exit(main())
