"""Runs the steps that are due, each as a process of its own, until the minutes are used.

A step that fails, hangs or takes the GPU down with it is a line of the receipt, and the next one runs all the same.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.step_arguments import MORE_TO_DO
from benchmarks.gpu.steps import Step
from botformer.benchmark.receipt import write_receipt

ROOT = Path(__file__).parents[2]
PACKAGE = "benchmarks.gpu"
"""Where the modules of steps are."""
LEAST_SECONDS = 10
GRACE_SECONDS = 15
"""How long a step may go on after its seconds before it is asked to stop, and after that before it is killed."""
IDLE_SECONDS = 3
"""A step that says sooner that there is more to do can do nothing with what is left of this call."""
MOST_TRIES = 3
NOTES = (
    "One row per step. done: all was measured. more: its seconds were used, and the next call goes on. failed: the "
    "message says how; it is tried again in the next call, three times in all."
)


@dataclass(frozen=True)
class Folders:
    results: Path
    """Receipts, charts and tables."""
    work: Path
    """What steps need again in a later call: checkpoints, unpacked data."""
    packs: Path
    """Data that travelled with the code."""


class Runner:
    """Runs steps and remembers in a receipt how they ended."""

    def __init__(self, steps: Sequence[Step], folders: Folders, quick: bool, after_step: Callable[[], None]) -> None:
        self.steps, self.folders, self.quick, self.after_step = steps, folders, quick, after_step
        self.receipt = folders.results / f"kit_{'cpu_quick' if quick else 'gpu'}.json"
        self.rows = {row["step"]: row for row in self._earlier_rows()}
        self.failed: set[str] = set()
        self.waiting: set[str] = set()
        """Steps for which there is too little time left in this call."""
        self.process: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def run(self, seconds: float) -> bool:
        """Run due steps for at most so many seconds. True: nothing is left to do."""
        deadline = time.monotonic() + seconds
        for call in sorted({step.call for step in self.steps}):
            shares = True  # first everybody's own seconds, then equal parts of what is left
            while due := [step for step in self.steps if step.call == call and self._is_due(step)]:
                for number, step in enumerate(due):
                    left = deadline - time.monotonic() - 2 * GRACE_SECONDS
                    if self.stopped or left < LEAST_SECONDS:
                        return False
                    equal = max(left / (len(due) - number), LEAST_SECONDS)
                    self._run_step(step, min(step.seconds, left) if shares else equal)
                shares = False
        return all(self.rows.get(step.name, {}).get("status") == "done" for step in self.steps)

    def stop(self) -> None:
        """Ask the step that runs to stop, and begin no other."""
        self.stopped = True
        self._signal(signal.SIGTERM)

    def _is_due(self, step: Step) -> bool:
        row = self.rows.get(step.name, {})
        return (
            row.get("status") != "done"
            and step.name not in self.failed | self.waiting
            and row.get("failures", 0) < MOST_TRIES
        )

    def _run_step(self, step: Step, seconds: float) -> None:
        module, *arguments = step.command
        places = {"work": self.folders.work, "packs": self.folders.packs}
        command = [sys.executable, "-m", f"{PACKAGE}.{module}"]
        command += [argument.format(**places) for argument in arguments]
        command += ["--results", str(self.folders.results), "--seconds", f"{seconds:.0f}"]
        command += ["--quick"] * self.quick
        print(f"== {step.name}: at most {seconds:.0f} s", flush=True)
        begun = time.monotonic()
        log = self.folders.results / "logs" / f"{step.name.replace(' ', '_')}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            # A session of its own, so that its workers end with it.
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment(), stdout=output, stderr=output, start_new_session=True
            )
            status = self._wait(self.process, seconds)
            self._signal(signal.SIGKILL)
            self.process = None
        self._note(step, status, time.monotonic() - begun, log)

    def _wait(self, process: subprocess.Popen[bytes], seconds: float) -> int:
        for number, patience in ((signal.SIGTERM, seconds + GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
            try:
                return process.wait(patience)
            except subprocess.TimeoutExpired:
                self._signal(number)
        return process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To the step and whatever it started."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):  # it and all that it started have ended
                os.killpg(self.process.pid, number)

    def _note(self, step: Step, status: int, seconds: float, log: Path) -> None:
        before = self.rows.get(step.name, {})
        failed = status not in (0, MORE_TO_DO) and not self.stopped
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        message = f"exit status {status}: {(lines or ['no output'])[-1][:300]}" if failed else ""
        self.rows[step.name] = {
            "step": step.name,
            "call": step.call,
            "status": "failed" if failed else "done" if status == 0 else "more",
            "seconds": round(before.get("seconds", 0) + seconds, 1),
            "runs": before.get("runs", 0) + 1,
            "failures": before.get("failures", 0) + failed,
            "message": message,
        }
        if failed:
            self.failed.add(step.name)
        elif status == MORE_TO_DO and seconds < IDLE_SECONDS:
            self.waiting.add(step.name)
        print(f"   {self.rows[step.name]['status']} after {seconds:.0f} s {message}".rstrip(), flush=True)
        rows = [self.rows[name] for name in (one.name for one in self.steps) if name in self.rows]
        write_receipt(self.receipt, "The GPU kit: what ran, and how it ended", "make gpu", rows, notes=NOTES)
        self.after_step()

    def _environment(self) -> dict[str, str]:
        paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        # A quick run needs no GPU: the fused kernels run in Triton's interpreter. Its sizes are too small for threads.
        return os.environ | own | ({"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"} if self.quick else {})

    def _earlier_rows(self) -> list[dict[str, Any]]:
        return json.loads(self.receipt.read_text(encoding="utf-8"))["figures"] if self.receipt.is_file() else []
