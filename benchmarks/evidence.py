"""What the paper claims, measured in small: train the networks of the rows of evidence_rows.py, two side by side.

python benchmarks/evidence.py --data FOLDER [--row NAME ...] [--minutes N] [--seeds 0 1 2] [--out runs/evidence]

FOLDER holds the archives of the data sets (dsb2018.zip, ...). When the minutes are over, trainings stop with a
checkpoint; the next call continues them. A training that is done is not repeated, and networks that rows share are
trained once. In the end every row with a comparison of three seeds or more gets its receipt, evidence_NAME.json in
results/, from all trainings in --out, and results/EVIDENCE.md is written from all receipts (--minutes 0: these alone).
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evidence_page import write_page
from evidence_rows import ROWS, SEEDS, Row
from evidence_statistics import Run, measured_effects
from evidence_trainings import Job, jobs, seeds_of_runs, train_all

from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores

RESULTS = Path(__file__).parents[1] / "results"
_ROW = f"of {', '.join(ROWS)}; all by default"
NOTES = (
    "Rows with an arm are trainings, and means over their seeds: metrics of the last checkpoint, in points, of all "
    "validation images; seconds: of training steps, beside another training on the second core and other work, so they "
    "do not compare networks; commit: of the training. Rows with an effect: difference: of the means over seeds, in "
    "points; low, high: its 95 % interval over validation images and seeds; verdict: of that interval; paper: the same "
    "difference in the paper's table."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives; what is missing is left out")
    parser.add_argument("--row", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=_ROW)
    parser.add_argument("--minutes", type=float, default=60, help="of training, over which an evaluation may run")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(SEEDS), metavar="SEED", help="to train; 0 1 2 by default"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"), help="where the trainings are")
    parser.add_argument("--at-once", type=int, default=cores(), help="trainings side by side; one per core by default")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    rows = [ROWS[name] for name in given.row]
    wanted = jobs(rows, given.seeds, given.out)
    if given.minutes:
        train_all([job for job in wanted if not job.is_done], given.data, deadline, given.at_once)
    for row in rows:
        write_row(row, given.out)
    write_page(RESULTS)
    left = sum(not job.is_done for job in wanted)
    print(f"{len(wanted) - left} of {len(wanted)} trainings are done{'; the next call goes on' if left else ''}")


def write_row(row: Row, out: Path) -> None:
    """The receipt of a row, if one of its effects can be told. What an earlier one has of trainings that are not in
    `out` any more stays."""
    done = [job for job in jobs([row], seeds_of_runs(out), out) if job.is_done]
    if not done:
        return
    runs: dict[str, dict[int, Run]] = {}
    for job in done:
        truth = job.data / "annotations" / f"instances_{job.arm.dataset.split}.json"
        runs.setdefault(job.name, {})[job.seed] = Run(job.arm.dataset, job.run / "evaluation", truth)
    path = RESULTS / f"evidence_{row.name}.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else []
    claims = [effect.claim for effect in row.effects]
    effects = _merged(earlier, measured_effects(row, runs), claims, "effect", "metric")
    if not effects:
        return
    earlier = [line for line in earlier if line.get("seed") != "mean"]
    trainings = _merged(earlier, [training(row, job, runs) for job in done], row.arms, "arm", "seed")
    means = [
        {"arm": arm, "seed": "mean"}
        | {metric: round(fmean(line[metric] for line in of_arm), 2) for metric in row.metrics(arm)}
        for arm in row.arms
        if (of_arm := [line for line in trainings if line["arm"] == arm])
    ]
    command = f"python benchmarks/evidence.py --data FOLDER --row {row.name}"
    write_receipt(path, f"Evidence: {row.claim}", command, [*trainings, *means, *effects], done[0].seed, NOTES)


def training(row: Row, job: Job, runs: Mapping[str, Mapping[int, Run]]) -> dict[str, Any]:
    """What the receipt says of one training."""
    resampled = {metric: runs[job.name][job.seed].resampled(metric) for metric in row.metrics(job.name)}
    return {
        "arm": job.name,
        "seed": job.seed,
        **{metric: round(float(values[0]), 2) for metric, values in resampled.items()},
        "seconds": round(job.seconds),
        "commit": json.loads(job.measured.read_text("utf-8"))["commit"],
        "command": job.command,
    }


def _merged(
    earlier: list[dict[str, Any]], now: list[dict[str, Any]], names: Sequence[str], column: str, other: str
) -> list[dict[str, Any]]:
    """The lines of now, and those of an earlier receipt that were not measured again, in the order of `names`, which
    are in `column`; two lines are the same where `other` is equal too."""
    lines = {(line[column], line[other]): line for line in earlier if line.get(column) in names}
    lines |= {(line[column], line[other]): line for line in now}
    return sorted(lines.values(), key=lambda line: names.index(line[column]))


if __name__ == "__main__":
    main()
