"""One command per data set, as a new user would type it, within the minutes: results/own_images_cpu.json.

python benchmarks/own_images.py --data FOLDER [--rows NAME ...] [--out runs/own_images]

FOLDER holds the archives of `ROWS`. A row that was measured stays as it is until its folder in --out is deleted. Pin
the process to cores (taskset) to measure with fewer.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botformer.benchmark.receipt import receipt_origin, write_receipt

RESULTS = Path(__file__).parents[1] / "results"
TITLE = "Your own images: one command, in the time there is"
NOTES = (
    "cores: that the process might use. seconds: of the whole command, its report included. expected_seconds: that it "
    "announced when its plan stood. Scores are of the whole validation split and the best checkpoint. photos: "
    "TrashNet, 2,018 training images, objects partly in both splits. balloons: 13 validation images, a noisy AP. "
    "nuclei: dsb2018, split by a hash of the images' names, so crops of one slide may be in both splits."
)


@dataclass(frozen=True)
class Row:
    name: str
    archive: str
    verb: str
    minutes: float
    options: tuple[str, ...] = ()


_RANDOM = ("--model.weights", "")
ROWS = (
    Row("photos, 15 minutes", "photos", "classify", 15),
    Row("photos, 3 minutes", "photos", "classify", 3),
    Row("photos, 15 minutes, random weights", "photos", "classify", 15, _RANDOM),
    Row("nuclei, 45 minutes", "dsb2018", "segment", 45),
    Row("balloons, 20 minutes", "balloons", "segment", 20),
    Row("balloons, 20 minutes, random weights", "balloons", "segment", 20, _RANDOM),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=[row.name for row in ROWS], metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("runs/own_images"))
    given = parser.parse_args()
    for row in ROWS:
        if row.name in given.rows and not _measured(given.out, row).is_file():
            _measure(row, given.data, given.out)
    figures = [json.loads(file.read_text("utf-8")) for row in ROWS if (file := _measured(given.out, row)).is_file()]
    receipt, command = RESULTS / "own_images_cpu.json", "python benchmarks/own_images.py --data FOLDER"
    print(write_receipt(receipt, TITLE, command, _with_earlier(figures, receipt), 0, NOTES).name)


def _with_earlier(figures: list[dict[str, Any]], receipt: Path) -> list[dict[str, Any]]:
    """And the rows of an earlier receipt that were not measured again."""
    earlier = json.loads(receipt.read_text("utf-8"))["figures"] if receipt.is_file() else []
    return list(({line["row"]: line for line in earlier} | {line["row"]: line for line in figures}).values())


def _folder(out: Path, row: Row) -> Path:
    return out / row.name.replace(", ", "-").replace(" ", "_")


def _measured(out: Path, row: Row) -> Path:
    return _folder(out, row) / "measured.json"


def _measure(row: Row, archives: Path, out: Path) -> None:
    data, run = out / "data" / row.archive, _folder(out, row)
    if not data.is_dir():
        with zipfile.ZipFile(archives / f"{row.archive}.zip") as archive:
            archive.extractall(data)
    arguments = [row.verb, "--data", str(data), "--minutes", f"{row.minutes:g}", "--out", str(run), *row.options]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "botformer.cli", "train", *arguments], check=True)
    seconds = time.perf_counter() - began
    figures = {
        "row": row.name,
        "minutes": row.minutes,
        "seconds": round(seconds),
        **_plan(json.loads((run / "plan.json").read_text("utf-8"))),
        **_scores(json.loads((run / "evaluation" / "metrics.json").read_text("utf-8"))),
        "commit": receipt_origin()["commit"][:7],
    }
    _measured(out, row).write_text(json.dumps(figures), encoding="utf-8")
    print(figures, flush=True)


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    chosen = next(row for row in plan["candidates"] if row["chosen"])
    names = ("model", "weights", "px", "batch_size", "images_per_s", "epochs")
    return {
        "expected_seconds": round(plan["expected_seconds"]),
        "cores": len(os.sched_getaffinity(0)),
        **{name: chosen[name] for name in names},
    }


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    if "mask" in metrics:
        return {f"mask_{name}": round(metrics["mask"][name], 4) for name in ("AP", "AP50", "AP75")}
    return {name: round(metrics[name], 4) for name in ("top1", "balanced_accuracy") if name in metrics}


if __name__ == "__main__":
    main()
