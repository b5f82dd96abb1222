"""Training at real size, over as many calls as it takes: CIFAR-10, nuclei, kinds of position.

python -m benchmarks.gpu.training [NAME ...] --results DIR --work DIR --packs DIR --seconds S [--quick]

NAME is a row of `training_table.RUNS`; by default all of them. Each training has a process of its own, is stopped with
a checkpoint in WORK/runs when the seconds are nearly over, and is continued by the next call. Data are unpacked from
PACKS (see `data_packs`) into WORK/data. Exit status: 0 all done, 75 more to do, 1 data are missing.
"""

import json
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.gpu import data_packs
from benchmarks.gpu.step_arguments import COMMAND, MORE_TO_DO, step_parser
from benchmarks.gpu.train_one import RATES, train_one
from benchmarks.gpu.training_table import COLUMNS, RECEIPTS, RUNS, Job, jobs
from benchmarks.run_journal import read_records, step_seconds
from botformer.benchmark.receipt import write_receipt
from botformer.errors import InputError, unknown
from botformer.training.signals import stop_request

DONE, STOPPED, FAILED = "done", "stopped", "failed"
LOADER_NOTES = (
    "loader: the loader alone, with its workers and nothing else; step: training steps on one batch that stays on the "
    "device; training: median over the steps of the run, both together. Images per second."
)


def main() -> int:
    parser = step_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--packs", type=Path, required=True)
    given = parser.parse_args()
    for name in given.names:
        if name not in {row.name for row in RUNS}:
            parser.error(str(unknown("row", name, [row.name for row in RUNS])))
    if given.quick:
        data_packs.write_quick_packs(given.packs)
    chosen = list(jobs(tuple(given.names), given.quick))
    return Calls(given.results, given.work, given.packs, given.quick).train(chosen, given.seconds)


class Calls:
    """Trainings and their receipts, as far as all calls together have come.

    A failed training is a row that says why; the next call tries it again, after all others.
    """

    def __init__(self, results: Path, work: Path, packs: Path, quick: bool) -> None:
        self.results, self.work, self.packs, self.quick = results, work, packs, quick
        self.kind = "cpu_quick" if quick else on_device()
        # Fresh processes are sure to find their GPU. Forks of one server import everything once.
        self.processes: Any = multiprocessing.get_context("forkserver" if quick else "spawn")
        if quick:
            self.processes.set_forkserver_preload(["botformer.create.train_recipe"])
        # To stop: finish an evaluation and write a checkpoint. To start: imports, workers and a few steps.
        self.stop_s, self.start_s = (8.0, 10.0) if quick else (30.0, 40.0)
        self.measure_s = 0.5 if quick else 6.0

    def train(self, chosen: list[Job], seconds: float) -> int:
        """Exit status: 0 where all trainings have ended, well or not, `MORE_TO_DO`, or 1 where data are missing."""
        deadline = time.monotonic() + seconds
        waiting = [job for job in chosen if self.state(job) != DONE]
        waiting.sort(key=lambda job: self.state(job).startswith(FAILED))
        missing: set[str] = set()
        with stop_request() as request:
            for group in groups(waiting):
                pack = RECEIPTS[group[0].row.receipt].pack
                if pack in missing:
                    continue
                if request.signal or deadline - time.monotonic() < self.stop_s + self.start_s:
                    return MORE_TO_DO
                try:
                    data = data_packs.unpack(data_packs.pack_path(self.packs, pack), self.work / "data" / pack)
                except InputError as error:
                    print(f"no trainings on {pack}: {error}", file=sys.stderr)
                    missing.add(pack)
                    continue
                with ThreadPoolExecutor(len(group)) as threads:
                    states = threads.map(
                        lambda job, data=data: self.train_until(job, data, deadline, lambda: request.signal != 0), group
                    )
                    for job, state in zip(group, states, strict=True):
                        self.write(job, state)
                        print(f"{job.name}: {state}", flush=True)
                if any(self.state(job).startswith(STOPPED) for job in group):
                    return MORE_TO_DO
        return 1 if missing else 0

    def train_until(self, job: Job, data: Path, deadline: float, stop: Any) -> str:
        """Train in a process of its own, until it ends or has to. Returns its state in words."""
        run, log = self.run(job), self.log(job)
        run.parent.mkdir(parents=True, exist_ok=True)
        alone = RECEIPTS[job.row.receipt].at_once == 1
        measure_s = self.measure_s if alone and job.seed == job.row.seeds[0] else 0.0
        process = self.processes.Process(target=train_one, args=(job.recipe, str(data), run, log, measure_s))
        process.start()
        try:
            while process.is_alive() and not stop() and time.monotonic() < deadline - self.stop_s:
                process.join(0.2)
            if process.is_alive():
                process.terminate()  # it saves a checkpoint
                process.join(max(1.0, deadline - 2 - time.monotonic()))
        finally:
            if process.is_alive():
                process.kill()
                process.join()
        if process.exitcode == 0:
            return DONE
        if process.exitcode in (143, -15):
            return f"{STOPPED}; the next call continues"
        if process.exitcode == -9:
            return f"{STOPPED} too late for a checkpoint; the next call continues from the last one"
        return f"{FAILED}: {last_line(log)} (exit status {process.exitcode})"

    def run(self, job: Job) -> Path:
        return self.work / "runs" / job.name

    def log(self, job: Job) -> Path:
        return self.work / "runs" / f"{job.name}.log"

    # Receipts

    def state(self, job: Job) -> str:
        """As its row says, of this call or an earlier one; empty where there is none."""
        row = next((row for row in self.rows(job.row.receipt) if same(row, labels(job))), {})
        return row.get("state", "")

    def write(self, job: Job, state: str) -> None:
        receipt = RECEIPTS[job.row.receipt]
        row = labels(job) | {"state": state} | figures(self.run(job), job)
        self.update(job.row.receipt, receipt.title, f"{receipt.notes} {COLUMNS}", row)
        rates = self.run(job) / RATES
        if rates.is_file():
            alone = json.loads(rates.read_text(encoding="utf-8"))
            row = labels(job) | alone | {"training_images_per_s": row.get("images_per_s")}
            self.update("loader", "Training: does the loader keep up with the device?", LOADER_NOTES, row)

    def update(self, name: str, title: str, notes: str, row: dict[str, Any]) -> None:
        """Add the row to a receipt, or put it in the place of its older one."""
        rows = self.rows(name)
        place = next((place for place, old in enumerate(rows) if same(old, row)), len(rows))
        rows[place : place + 1] = [row]
        write_receipt(self.path(name), title, COMMAND, rows, notes=notes)

    def rows(self, name: str) -> list[dict[str, Any]]:
        path = self.path(name)
        return json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else []

    def path(self, name: str) -> Path:
        return self.results / f"{name}_{self.kind}.json"


def groups(waiting: list[Job]) -> list[list[Job]]:
    """Trainings that run at the same time; every group is of one receipt."""
    found: list[list[Job]] = []
    for receipt, together in groupby(waiting, key=lambda job: job.row.receipt):
        trainings = list(together)
        at_once = RECEIPTS[receipt].at_once
        found += [trainings[i : i + at_once] for i in range(0, len(trainings), at_once)]
    return found


def labels(job: Job) -> dict[str, Any]:
    position = {"position": job.recipe.model.position} if job.row.receipt == "positions" else {}
    return {"run": job.row.name, "model": job.recipe.model.name, "seed": job.seed} | position


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["run"], one["seed"]) == (other["run"], other["seed"])


def figures(run: Path, job: Job) -> dict[str, Any]:
    """What the run's log says so far."""
    found: dict[str, Any] = {
        "epochs": job.recipe.schedule.epochs,
        "batch": job.recipe.run.batch_size,
        "at_once": RECEIPTS[job.row.receipt].at_once,
    }
    records = read_records(run / "metrics.jsonl")
    steps = [record for record in records if record["kind"] == "train"]
    if not steps:
        return found
    images_per_s = statistics.median(record["images_per_s"] for record in steps)
    usual = [record for record in steps if record["images_per_s"] > images_per_s / 10]
    evaluation = next((record for record in reversed(records) if record["kind"] == "evaluation"), {})
    return found | {
        "epochs_done": steps[-1]["epoch"],
        "steps": steps[-1]["step"],
        **{name: evaluation.get(name) for name in RECEIPTS[job.row.receipt].metrics},
        "images_per_s": round(images_per_s, 1),
        "seconds": round(step_seconds(steps, job.recipe.run.batch_size), 1),
        "memory_mb": max(record["memory_mb"] for record in steps),
        "waited": round(sum(record["waited_s"] for record in usual) / seconds_of(usual, job), 4),
    }


def seconds_of(steps: list[dict[str, Any]], job: Job) -> float:
    """Of these steps alone."""
    return sum(job.recipe.run.batch_size / record["images_per_s"] for record in steps)


def on_device() -> str:
    import torch  # seconds, which a dry run need not wait for

    return "gpu" if torch.cuda.is_available() else "cpu"


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "no message"


if __name__ == "__main__":
    sys.exit(main())
