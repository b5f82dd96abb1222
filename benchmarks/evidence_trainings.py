"""The trainings behind the rows of evidence_rows.py: each in a process of its own, stopped and continued."""

import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from threading import Event
from typing import Any

from evidence_rows import ARMS, Arm, Dataset, Row
from run_journal import training_seconds

from botformer.atomic_write import write_json
from botformer.benchmark.receipt import receipt_origin
from botformer.weights.imagenet import find_imagenet_weights, why_no_imagenet_weights

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
        """With which command, by which commit and on which processor; continued elsewhere, it stays."""
        return self.run.with_name(f"{self.run.name}.began.json")

    @property
    def measured(self) -> Path:
        """Written last."""
        return self.run / "measured.json"

    @property
    def is_done(self) -> bool:
        """With the options that its arm has now."""
        return self.measured.is_file() and json.loads(self.measured.read_text("utf-8"))["command"] == self.command

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


@dataclass(frozen=True)
class End:
    """When trainings stop."""

    deadline: float
    """Of `time.monotonic`."""
    signalled: Event = field(default_factory=Event)

    @property
    def is_here(self) -> bool:
        return self.signalled.is_set() or time.monotonic() >= self.deadline


def train_all(waiting: list[Job], archives: Path, end: End, at_once: int, others_too: bool = False) -> list[str]:
    """Train and measure as many as can be done before the end, so many at once. Returns what failed; the others go on.

    `others_too`: archives may be others than those that the project's receipts are of.
    """
    failures = []
    for dataset in {job.arm.dataset.name: job.arm.dataset for job in waiting}.values():
        (data,) = {job.data for job in waiting if job.arm.dataset == dataset}
        if why_not := _unpack(dataset, archives / f"{dataset.name}.zip", data, others_too):
            failures.append(f"{why_not}. Its trainings are left out")
            waiting = [job for job in waiting if job.arm.dataset != dataset]
    with ThreadPoolExecutor(at_once) as threads:
        return failures + [failure for failure in threads.map(lambda job: train(job, end), waiting) if failure]


def _unpack(dataset: Dataset, archive: Path, data: Path, others_too: bool) -> str:
    """Into `data`, whole or not at all. Returns what is wrong with the archive."""
    if not archive.is_file():
        return f"{archive} is missing"
    with archive.open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()[: len(dataset.archive)]
    if found != dataset.archive and not others_too:
        return (
            f"{archive} is another archive than that of the receipts here (sha256 {found}..., not {dataset.archive}...)"
            "; --results FOLDER takes it, for receipts of your own"
        )
    if data.is_dir():
        return ""
    data.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data.parent) as folder, zipfile.ZipFile(archive) as content:
        part = Path(folder) / dataset.name
        content.extractall(part)
        if missing := [name for name in dataset.contents if not (part / name).exists()]:
            return f"{archive} has no {' and no '.join(missing)}"
        if not data.is_dir():  # another call was first
            part.rename(data)
    return ""


def train(job: Job, end: End) -> str:
    """Train until done or the end, then measure. Returns what failed; more stands in RUN.log."""
    if end.is_here:
        return ""
    name = job.arm.changes["model.name"]
    if "model.weights" in job.arm.changes and find_imagenet_weights(name) is None:
        return why_no_imagenet_weights(name)
    job.run.parent.mkdir(parents=True, exist_ok=True)
    if not job.began.is_file():
        write_json(job.began, _origin(job))
    elif (command := json.loads(job.began.read_text("utf-8"))["command"]) != job.command:
        return f"{job.run} was begun with other options ({command}): remove it, or give another --out"
    arguments = ["train", job.arm.recipe, "--data", str(job.data), "--out", str(job.run), *job.options]
    # Few images in the evaluation that ends a training: all of them are measured below.
    status = _botformer(job, [*arguments, "--run.evaluation-images", "8", "--run.device", "cpu"], lambda: end.is_here)
    if status == 0:
        print(f"{job.name}, seed {job.seed}: trained", flush=True)
        evaluation = ["--out", str(job.run / "evaluation"), "--device", "cpu"]
        status = _botformer(
            job, ["evaluate", str(job.run / "last"), "--data", str(job.data), *evaluation], end.signalled.is_set
        )
    if status in STOPPED:
        print(f"{job.name}, seed {job.seed}: stopped, to be continued", flush=True)
    elif status:
        return f"{job.name}, seed {job.seed}: exit status {status}; see {job.log}"
    else:
        write_json(job.measured, json.loads(job.began.read_text("utf-8")))
    return ""


def _origin(job: Job) -> dict[str, Any]:
    origin = receipt_origin()
    found = {"commit": origin["commit"][:10], "processor": origin["hardware"]["processor"], "command": job.command}
    if origin["uncommitted_changes"]:
        print(f"{job.name}: the package differs from its commit", file=sys.stderr)
        found["uncommitted_changes"] = True
    return found


def _botformer(job: Job, arguments: list[str], is_to_stop: Callable[[], bool]) -> int:
    """Exit status; one of `STOPPED` where it was to stop first."""
    with job.log.open("ab") as log:
        command = [sys.executable, "-m", "botformer.cli", *arguments]
        # In a session of its own: Ctrl-C is for us, and it is asked to stop once.
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            if is_to_stop():
                process.terminate()
                process.wait()
            time.sleep(0.2)
    return process.returncode


def _words(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
