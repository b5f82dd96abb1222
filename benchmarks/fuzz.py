"""Malformed images, annotation files, checkpoints, recipes, command lines: results/fuzz_cpu.json.

python benchmarks/fuzz.py --cases 10000 --seed 0 --receipt     the long run
python benchmarks/fuzz.py --kind annotations --seed 123        one case again, to see what was found

Of --cases each kind gets its share, with the seeds --seed, --seed + 1, ...; a kind and a seed make the same case again.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the cases stand beside the tests
os.environ |= {"HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}

from tests.fuzz.watched_process import LONGEST_S, MOST_MIB, SHARES, Outcome, WatchedProcess  # noqa: E402

TITLE = "Fuzzing: malformed input of every kind"
NOTES = (
    f"A find is a trace, an exception other than InputError, code or a connection that a file started, more than "
    f"{LONGEST_S:g} s or more than {MOST_MIB} MiB. slowest_s and peak_mib are of one case, PyTorch's own memory "
    "included. seeds: the first and the last; of finds, the first five."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=SHARES)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--receipt", action="store_true", help="write results/fuzz_cpu.json")
    given = parser.parse_args()
    cases = list(_cases(given.kind, given.cases, given.seed))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-valid-") as folder:
        from tests.fuzz.valid_inputs import write_valid_inputs

        write_valid_inputs(Path(folder) / "valid")
        outcomes = _run(cases, min(given.processes, len(cases)), Path(folder) / "valid")
    figures = [row for kind in SHARES if (row := _row([each for each in outcomes if each.kind == kind]))]
    for row in figures:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    print(f"{len(cases)} cases in {time.monotonic() - began:.0f} s")
    if given.receipt:
        from botformer.benchmark.receipt import write_receipt

        command = f"python benchmarks/fuzz.py --cases {given.cases} --seed {given.seed} --receipt"
        path = ROOT / "results" / "fuzz_cpu.json"
        print(write_receipt(path, TITLE, command, figures, given.seed, NOTES).name)
    sys.exit(any(each.find for each in outcomes))


def _cases(kind: str | None, count: int, seed: int) -> Iterator[tuple[str, int]]:
    """Kinds by turns, so that the time left can be told from the time gone."""
    if kind is not None:
        yield from ((kind, seed + number) for number in range(count))
        return
    total = sum(SHARES.values())
    rows = [[(name, seed + number) for number in range(-(-count * share // total))] for name, share in SHARES.items()]
    most = max(map(len, rows))
    places = [[(place * most / len(row), case) for place, case in enumerate(row)] for row in rows]
    ordered = sorted((each for row in places for each in row), key=lambda each: each[0])
    yield from [case for _, case in ordered][:count]


def _run(cases: Sequence[tuple[str, int]], processes: int, valid: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    left, lock, began = iter(cases), Lock(), time.monotonic()
    shown = began

    def work(number: int) -> None:
        nonlocal shown
        with WatchedProcess(valid) as process:
            while True:
                with lock:
                    case = next(left, None)
                if case is None:
                    return
                outcome = process.run(*case)
                with lock:
                    outcomes.append(outcome)
                    if outcome.find:
                        print(
                            f"--kind {outcome.kind} --seed {outcome.seed}: {outcome.ended}\n{outcome.find}", flush=True
                        )
                    now = time.monotonic()
                    if now - shown > 15:
                        shown = now
                        seconds = (now - began) / len(outcomes) * (len(cases) - len(outcomes))
                        finds = sum(bool(each.find) for each in outcomes)
                        print(f"{len(outcomes)}/{len(cases)}, {finds} finds, {seconds:.0f} s left", flush=True)

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(work, range(processes)))
    return outcomes


def _row(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    if not outcomes:
        return {}
    seeds = [each.seed for each in outcomes]
    finds = [each.seed for each in outcomes if each.find]
    return {
        "kind": outcomes[0].kind,
        "cases": len(outcomes),
        "accepted": sum(each.ended in ("accepted", "exit 0") for each in outcomes),
        "finds": len(finds),
        "slowest_s": round(max(each.seconds for each in outcomes), 2),
        "peak_mib": round(max(each.peak_mib for each in outcomes)),
        "seeds": f"{min(seeds)} to {max(seeds)}" + f"; finds {finds[:5]}" * bool(finds),
    }


if __name__ == "__main__":
    main()
