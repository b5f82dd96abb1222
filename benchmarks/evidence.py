"""What the paper claims, measured in small: train the networks of the rows of evidence_rows.py, two side by side.

python benchmarks/evidence.py --data FOLDER [--row NAME ...] [--minutes N] [--seeds 0 1 2] [--out runs/evidence]

FOLDER holds the archives of the data sets (dsb2018.zip, ...). When the minutes are over, trainings stop with a
checkpoint; the next call continues them. A training that is done is not repeated, and networks that rows share are
trained once. In the end what comparisons need of every training in --out is kept in results/evidence/, every row with a
comparison of three seeds or more gets its receipt from there, results/evidence_NAME.json, and results/EVIDENCE.md is
written from all receipts (--minutes 0: these alone).
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evidence_kept import Kept, keep, kept_trainings
from evidence_page import write_page
from evidence_rows import ROWS, SEEDS, Row
from evidence_statistics import measured_effects
from evidence_trainings import done_jobs, jobs, train_all

from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores

RESULTS = Path(__file__).parents[1] / "results"
_ROW = f"of {', '.join(ROWS)}; all by default"
NOTES = (
    "Rows with an arm are trainings, and means over their seeds: metrics of the last checkpoint, in points, of all "
    "validation images; seconds: of training steps, beside another training on the second core and other work, so they "
    "do not compare networks; commit, processor: of the training. Rows with an effect: difference: of the means over "
    "seeds, in points; low, high: its 95 % interval over validation images and seeds; verdict: of that interval; "
    "paper: the same difference in the paper's table."
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
    for job in done_jobs(given.out):
        keep(job, RESULTS / "evidence")
    for row in rows:
        write_row(row)
    write_page(RESULTS)
    left = sum(not job.is_done for job in wanted)
    print(f"{len(wanted) - left} of {len(wanted)} trainings are done{'; the next call goes on' if left else ''}")


def write_row(row: Row) -> None:
    """The receipt of a row, from the trainings that are kept, if one of its effects can be told of them. What an
    earlier receipt has of others stays."""
    lines, effects = of_kept_trainings(row)
    if not effects:
        return
    path = RESULTS / f"evidence_{row.name}.json"
    earlier_lines, earlier_effects = _earlier(path)
    if halves := _half_repeated(row, earlier_lines, lines):
        print(f"{path.name} stays: trainings were repeated, but not all that these need: {'; '.join(halves)}")
        return
    trainings = _merged(earlier_lines, lines, row.arms, "arm", "seed")
    means = [
        {"arm": arm, "seed": "mean"}
        | {metric: round(fmean(line[metric] for line in of_arm), 2) for metric in row.metrics(arm)}
        for arm in row.arms
        if (of_arm := [line for line in trainings if line["arm"] == arm])
    ]
    effects = _merged(earlier_effects, effects, [effect.claim for effect in row.effects], "effect", "metric")
    seeds = sorted({line["seed"] for line in trainings})
    command = f"python benchmarks/evidence.py --data FOLDER --row {row.name} --seeds {' '.join(map(str, seeds))}"
    figures = [*trainings, *means, *effects]
    write_receipt(path, f"Evidence: {row.claim}", command, figures, trainings[0]["seed"], NOTES)


def of_kept_trainings(row: Row) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the receipt of a row says of the trainings that are kept, and of effects that can be told of them."""
    kept = kept_trainings(RESULTS / "evidence", row.arms)
    effects = measured_effects(row, {arm: {s: each.validation for s, each in kept[arm].items()} for arm in kept})
    return [_line(row, each) for of_arm in kept.values() for each in of_arm.values()], effects


def _line(row: Row, kept: Kept) -> dict[str, Any]:
    name_and_seed = {name: kept.training[name] for name in ("arm", "seed")}
    metrics = {m: round(float(kept.validation.resampled[m][0]), 2) for m in row.metrics(kept.training["arm"])}
    return name_and_seed | metrics | kept.training


def _earlier(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The trainings and the effects of a receipt that may be there."""
    if not path.is_file():
        return [], []
    receipt = json.loads(path.read_text(encoding="utf-8"))
    processor = receipt["hardware"]["processor"]  # of lines of older receipts, which do not say it
    trainings = [{"processor": processor} | line for line in receipt["figures"] if "commit" in line]
    return trainings, [line for line in receipt["figures"] if "effect" in line]


def _half_repeated(row: Row, earlier: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """Effects for which some trainings of the earlier receipt were repeated and others are gone."""
    again = {(line["arm"], line["seed"]): line for line in now}
    repeated = {line["arm"] for line in earlier if again.get((line["arm"], line["seed"]), line) != line}
    gone = {line["arm"] for line in earlier if (line["arm"], line["seed"]) not in again}
    return [each.claim for each in row.effects if repeated.intersection(each.arms) and gone.intersection(each.arms)]


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
