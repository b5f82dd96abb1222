"""Run a command of botformer, time it, and write a receipt with figures from a JSON file that it wrote.

python benchmarks/record.py cifar10 --title "CIFAR-10" --figures runs/cifar10/evaluation/metrics.json:top1,images \
    -- botformer evaluate runs/cifar10 --data DIR
"""

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from run_journal import read_records, training_seconds

from botformer.benchmark.receipt import write_receipt

RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="the receipt is results/NAME.json")
    parser.add_argument("--title", required=True)
    parser.add_argument("--figures", required=True, help="FILE.json:key,key,...; a/b is the value of b in a")
    parser.add_argument("--trained", type=Path, help="folder of the run whose steps and their seconds to add")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--notes", default="")
    own, command = sys.argv[1:], []
    if "--" in own:
        own, command = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    if not command:
        parser.error("the command to run comes after --")
    started = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started
    file, _, keys = given.figures.partition(":")
    measured = json.loads(Path(file).read_text(encoding="utf-8"))
    figures = {key: _value(measured, key) for key in keys.split(",")} | {
        "wall_seconds": round(seconds, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3),
    }
    if given.trained:
        figures |= _training(given.trained)
    path = write_receipt(
        RESULTS / f"{given.name}.json", given.title, shlex.join(command), figures, given.seed, given.notes
    )
    print(f"{path.name}: {figures}", file=sys.stderr)


def _training(run: Path) -> dict[str, int]:
    steps = read_records(run / "metrics.jsonl")[-1]["step"]
    return {"training_steps": steps, "training_seconds": round(training_seconds(run))}


def _value(content: Any, key: str) -> Any:
    for name in key.split("/"):
        content = content[name]
    return content


if __name__ == "__main__":
    main()
