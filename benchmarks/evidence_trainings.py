"""The trainings behind the rows of evidence_rows.py: each in a process of its own, stopped and continued."""

import json
import shlex
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence_rows import ARMS, Arm, Row
from run_journal import training_seconds

from botformer.atomic_write import write_json
from botformer.benchmark.receipt import receipt_origin

STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)
"""Exit status of a training that saved a checkpoint and stopped, and of one that had not begun."""


@dataclass(frozen=True)
class Job:
    """One training."""

    name: str
    """Of its arm."""
    seed: int
    out: Path

    @property
    def arm(self) -> Arm:
        return ARMS[self.name]

    @property
    def run(self) -> Path:
        return self.out / f"{self.name.replace(' ', '_').replace(',', '')}_{self.seed}"

    @property
    def log(self) -> Path:
        return self.run.with_name(f"{self.run.name}.log")

    @property
    def began(self) -> Path:
        """By which commit and on which processor; continued elsewhere, it stays."""
        return self.run.with_name(f"{self.run.name}.began.json")

    @property
    def measured(self) -> Path:
        """Written last."""
        return self.run / "measured.json"

    @property
    def is_done(self) -> bool:
        return self.measured.is_file()

    @property
    def data(self) -> Path:
        return self.out / "data" / self.arm.dataset.name

    @property
    def seconds(self) -> float:
        """Of all training steps, by the run's journal: without evaluations, and without what a kill lost."""
        return training_seconds(self.run)

    @property
    def options(self) -> list[str]:
        """What the command line has beside recipe and folders."""
        changes = {**self.arm.changes, "run.seed": self.seed}
        return [word for name, value in changes.items() for word in (f"--{name.replace('_', '-')}", *_words(value))]

    @property
    def command(self) -> str:
        """As a reader types it."""
        return shlex.join(["botformer", "train", self.arm.recipe, "--data", "DIR", *self.options])


def jobs(rows: Iterable[Row], seeds: Iterable[int], out: Path) -> list[Job]:
    """Row by row, all arms with the first seed before any with the second."""
    return list(dict.fromkeys(Job(arm, seed, out) for row in rows for seed in seeds for arm in row.arms))


def done_jobs(out: Path) -> list[Job]:
    """All trainings in a folder that are done, of any seed."""
    ends = {path.name.rpartition("_")[2] for path in out.glob("*_*") if path.is_dir()}
    seeds = sorted(int(end) for end in ends if end.isdecimal())
    return [job for arm in ARMS for seed in seeds if (job := Job(arm, seed, out)).is_done]


def train_all(waiting: list[Job], archives: Path, deadline: float, at_once: int) -> list[str]:
    """Train and measure as many as can be done before the deadline (`time.monotonic`), so many at once. Returns what
    failed; the others go on.

    Raises:
        SystemExit: there is no archive of any of them.
    """
    wanted = bool(waiting)
    for dataset in sorted({job.arm.dataset.name for job in waiting}):
        (data,) = {job.data for job in waiting if job.arm.dataset.name == dataset}
        archive = archives / f"{dataset}.zip"
        if data.is_dir():
            continue
        if not archive.is_file():
            print(f"{archive} is missing: its trainings are left out", file=sys.stderr)
            waiting = [job for job in waiting if job.arm.dataset.name != dataset]
            continue
        part = data.with_suffix(".part")
        with zipfile.ZipFile(archive) as content:
            content.extractall(part)
        part.rename(data)
    if wanted and not waiting:
        raise SystemExit(f"{archives} has none of the archives that are needed")
    with ThreadPoolExecutor(at_once) as threads:
        return [failure for failure in threads.map(lambda job: train(job, deadline), waiting) if failure]


def train(job: Job, deadline: float) -> str:
    """Train until done or the deadline, then measure. Returns what failed; more stands in RUN.log."""
    if time.monotonic() >= deadline:
        return ""
    job.run.parent.mkdir(parents=True, exist_ok=True)
    if not job.began.is_file():
        write_json(job.began, _origin(job))
    arguments = ["train", job.arm.recipe, "--data", str(job.data), "--out", str(job.run), *job.options]
    # Few images in the evaluation that ends a training: all of them are measured below.
    status = _botformer(job, [*arguments, "--run.evaluation-images", "8", "--run.device", "cpu"], deadline)
    if status == 0:
        print(f"{job.name}, seed {job.seed}: trained", flush=True)
        evaluation = ["--out", str(job.run / "evaluation"), "--device", "cpu"]
        status = _botformer(job, ["evaluate", str(job.run / "last"), "--data", str(job.data), *evaluation])
    if status in STOPPED:
        print(f"{job.name}, seed {job.seed}: stopped, to be continued", flush=True)
    elif status:
        return f"{job.name}, seed {job.seed}: exit status {status}; see {job.log}"
    else:
        write_json(job.measured, json.loads(job.began.read_text("utf-8")))
    return ""


def _origin(job: Job) -> dict[str, Any]:
    origin = receipt_origin()
    found = {"commit": origin["commit"][:10], "processor": origin["hardware"]["processor"]}
    if origin["uncommitted_changes"]:
        print(f"{job.name}: the package differs from its commit", file=sys.stderr)
        found["uncommitted_changes"] = True
    return found


def _botformer(job: Job, arguments: list[str], deadline: float | None = None) -> int:
    """Exit status; one of `STOPPED` where the deadline came first."""
    with job.log.open("ab") as log:
        command = [sys.executable, "-m", "botformer.cli", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
    return process.returncode


def _words(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
