"""What the paper claims, measured in small: train the networks of the rows of evidence_rows.py, two side by side.

python benchmarks/evidence.py --data FOLDER [--row NAME ...] [--minutes N] [--seeds 0 1 2] [--out runs/evidence]

FOLDER holds the archives of the data sets (dsb2018.zip, ...; docs/tutorials/reproduce.md has them). When the minutes
are over, or at Ctrl-C, trainings stop with a checkpoint; the next call continues them. A training that is done is not
repeated, nor one that is kept in results/evidence/ (with --results FOLDER nothing is kept yet), and networks that rows
share are trained once. In the end what comparisons need of every training in --out is kept there, every row with a
comparison of three seeds or more gets its receipt from what is kept, results/evidence_NAME.json, and
results/EVIDENCE.md is written from all receipts (--minutes 0: these alone).
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from evidence_kept import Kept, is_kept, keep, kept_trainings
from evidence_page import write_page
from evidence_rows import ROWS, SEEDS, Row
from evidence_statistics import measured_effects
from evidence_trainings import End, done_jobs, jobs, train_all

from botformer.benchmark.receipt import write_receipt
from botformer.environment import cores

RESULTS = Path(__file__).parents[1] / "results"
_ROW = f"of {', '.join(ROWS)}; all by default"
NOTES = (
    "Rows with an arm are trainings, and means over their seeds: metrics of the last checkpoint, in points, of all "
    "validation images; seconds: of training steps, beside another training on the second core and other work, so they "
    "do not compare networks; commit, processor: of the training. Rows with an effect: difference: of the means over "
    "seeds, in points; low, high: its 95 % interval over validation images and seeds; verdict: of that interval."
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
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="of receipts, page and what is kept; by default the project's"
    )
    parser.add_argument("--at-once", type=int, default=cores(), help="trainings side by side; one per core by default")
    given = parser.parse_args()
    end = End(time.monotonic() + 60 * given.minutes)
    kept = given.results / "evidence"
    wanted = jobs([ROWS[name] for name in given.row], given.seeds, given.out)
    not_kept = [job for job in wanted if not is_kept(job, kept)]
    waiting = [job for job in not_kept if not job.is_done]
    others_too = given.results.resolve() != RESULTS.resolve()
    failures = []
    if given.minutes:
        with signals_end(end):
            failures = train_all(waiting, given.data, end, given.at_once, others_too)
    for job in done_jobs(given.out):
        keep(job, kept)
    for row in ROWS.values():  # rows share trainings
        try:
            why_not = write_row(row, given.results)
        except ValueError as error:
            failures.append(str(error))
        else:
            if why_not and row.name in given.row:
                print(why_not)
    given.results.mkdir(parents=True, exist_ok=True)
    write_page(given.results)
    left = sum(not job.is_done for job in waiting)
    done = f"{len(wanted) - left} of {len(wanted)} trainings are done"
    if len(not_kept) < len(wanted):
        done += f", {len(wanted) - len(not_kept)} of them kept in {kept} (--results FOLDER trains them anew)"
    print(f"{done}{'; the next call goes on' if left else ''}")
    if failures:
        sys.exit("\n".join(dict.fromkeys(failures)))


@contextmanager
def signals_end(end: End) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop what is trained, as the deadline does, and no more is begun."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: end.signalled.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def write_row(row: Row, results: Path) -> str:
    """The receipt of a row, from the trainings that are kept, if one of its effects can be told of them. A receipt that
    names trainings which are not kept stays as it is: returns what is missing, where others were repeated or added.

    Raises:
        ValueError: they cannot be compared.
    """
    lines, effects = of_kept_trainings(row, results)
    path = results / f"evidence_{row.name}.json"
    earlier, figures_then = _earlier(path)
    again = {(line["arm"], line["seed"]) for line in lines}
    if gone := [f"{line['arm']}, seed {line['seed']}" for line in earlier if (line["arm"], line["seed"]) not in again]:
        new = any(line not in earlier for line in lines)
        return f"{path.name} stays until {len(gone)} more are repeated, such as {gone[0]}" if new else ""
    if not effects:
        return ""
    means = [
        {"arm": arm, "seed": "mean"}
        | {metric: round(fmean(line[metric] for line in of_arm), 2) for metric in row.metrics(arm)}
        for arm in row.arms
        if (of_arm := [line for line in lines if line["arm"] == arm])
    ]
    seeds = sorted({line["seed"] for line in lines})
    command = f"python benchmarks/evidence.py --data FOLDER --row {row.name} --seeds {' '.join(map(str, seeds))}"
    figures = [*lines, *means, *effects]
    if figures != figures_then:  # else its commit and date are right
        write_receipt(path, f"Evidence: {row.claim}", command, figures, lines[0]["seed"], NOTES)
    return ""


def of_kept_trainings(row: Row, results: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the receipt of a row says of the trainings that are kept, and of effects that can be told of them."""
    kept = kept_trainings(results / "evidence", row.arms)
    effects = measured_effects(row, {arm: {s: each.validation for s, each in kept[arm].items()} for arm in kept})
    return [_line(row, each) for arm in row.arms for _, each in sorted(kept.get(arm, {}).items())], effects


def _line(row: Row, kept: Kept) -> dict[str, Any]:
    name_and_seed = {name: kept.training[name] for name in ("arm", "seed")}
    metrics = {m: round(float(kept.validation.resampled[m][0]), 2) for m in row.metrics(kept.training["arm"])}
    return name_and_seed | metrics | kept.training


def _earlier(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The trainings of a receipt that may be there, and all of its figures."""
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else []
    return [line for line in figures if "commit" in line], figures


if __name__ == "__main__":
    main()
