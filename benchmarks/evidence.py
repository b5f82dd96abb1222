"""What the paper claims, measured in small: train the networks of the rows of evidence_rows.py, two side by side.

python benchmarks/evidence.py --data FOLDER [--row NAME ...] [--minutes N] [--seeds 0 1 2] [--out runs/evidence]

FOLDER holds the archives of the data sets (dsb2018.zip, ...). When the minutes are over, trainings stop with a
checkpoint; the next call continues them. A training that is done is not repeated, and networks that rows share are
trained once. In the end every row with a comparison of three seeds or more gets its receipt, evidence_NAME.json in
results/, and results/EVIDENCE.md is written from all receipts (--minutes 0: these alone).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from evidence_page import write_page
from evidence_rows import ROWS, SEEDS, Row
from evidence_statistics import Run, measured_effects
from evidence_trainings import jobs, train_all

from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores

RESULTS = Path(__file__).parents[1] / "results"
NOTES = (
    "Rows with an arm are trainings, and means over their seeds: metrics of the last checkpoint, in points, of all "
    "validation images; seconds: of training steps, beside another training on the second core and other work, so they "
    "do not compare networks; commit: of the training. Rows with an effect: difference: of the means over seeds, in "
    "points; low, high: its 95 % interval over validation images and seeds; verdict: of that interval; paper: the same "
    "difference in the paper's table."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--row", nargs="+", choices=ROWS, default=list(ROWS), help="all by default")
    parser.add_argument("--minutes", type=float, default=60, help="of training, over which an evaluation may run")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    parser.add_argument("--at-once", type=int, default=cores(), help="trainings side by side; one per core by default")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    rows = [ROWS[name] for name in given.row]
    wanted = jobs(rows, given.seeds, given.out)
    if given.minutes:
        train_all([job for job in wanted if not job.is_done], given.data, deadline, given.at_once)
    for row in rows:
        write_row(row, given.seeds, given.out)
    write_page(RESULTS)
    left = sum(not job.is_done for job in wanted)
    print(f"{len(wanted) - left} of {len(wanted)} trainings are done{'; the next call goes on' if left else ''}")


def write_row(row: Row, seeds: list[int], out: Path) -> None:
    """The receipt of a row, if one of its effects can be told."""
    done = [job for job in jobs([row], seeds, out) if job.is_done]
    runs: dict[str, dict[int, Run]] = {}
    for job in done:
        truth = job.data / "annotations" / f"instances_{job.arm.dataset.split}.json"
        runs.setdefault(job.name, {})[job.seed] = Run(job.arm.dataset, job.run / "evaluation", truth)
    effects = measured_effects(row, runs)
    if not effects:
        return
    trainings = []
    for job in done:
        values = {metric: runs[job.name][job.seed].resampled(metric)[0] for metric in row.metrics(job.name)}
        trainings.append({"arm": job.name, "seed": job.seed} | {name: round(float(v), 2) for name, v in values.items()})
        commit = json.loads(job.measured.read_text("utf-8"))["commit"]
        trainings[-1] |= {"seconds": round(job.seconds), "commit": commit, "command": job.command}
    means = [
        {"arm": arm, "seed": "mean"}
        | {
            metric: round(float(np.mean([run.resampled(metric)[0] for run in runs[arm].values()])), 2)
            for metric in row.metrics(arm)
        }
        for arm in runs
    ]
    write_receipt(
        RESULTS / f"evidence_{row.name}.json",
        f"Evidence: {row.claim}",
        f"python benchmarks/evidence.py --data FOLDER --row {row.name}",
        [*trainings, *means, *effects],
        seeds[0],
        NOTES,
    )


if __name__ == "__main__":
    main()
