"""results/evidence_*.json -> results/EVIDENCE.md. `--check` fails if the page does not match the receipts."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from evidence_rows import ARMS, ROWS, Row

RESULTS = Path(__file__).parents[1] / "results"
HEAD = """# Evidence in small

The paper's claims are of full-size networks on ImageNet and COCO, which have not been trained here. This page asks
what of them can be seen in minutes on one core: the paper's protocol with networks of half width, real ImageNet
weights, real images, and several seeds. `python benchmarks/evidence.py --data FOLDER` trains what is missing and
generates it from the receipts.

* A **difference** is of means over seeds, in points of AP or accuracy, with its 95 % interval over validation images
  (paired bootstrap) and seeds (Student's t). Above 0, the claim holds.
* **Verdict**: "holds in small" where the whole interval is above 0, "does not hold" where it is below, else it cannot
  be decided with so many seeds and images. No correction for the number of comparisons: of twenty differences that are
  really 0, one would be judged otherwise.
* The **paper's** figures are other networks, data and schedules: a sign to compare with, not a size.
"""
_NAMES = {
    "mask_AP": "mask AP",
    "mask_APs": "mask AP, small",
    "mask_APm": "mask AP, medium",
    "mask_APl": "mask AP, large",
}
_NAMES |= {"box_AP": "box AP", "top1": "top-1"}


def write_page(results: Path = RESULTS) -> None:
    (results / "EVIDENCE.md").write_text(page(results), encoding="utf-8")


def page(results: Path = RESULTS) -> str:
    receipts = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in ROWS
        if (path := results / f"evidence_{name}.json").is_file()
    }
    lines = [HEAD, "## All of it", "", *_table(("claim", "measured", "difference", "verdict"), _summary(receipts)), ""]
    for name, row in ROWS.items():
        lines += _section(row, receipts.get(name))
    return "\n".join(lines)


def _summary(receipts: dict[str, dict[str, Any]]) -> list[list[str]]:
    lines = []
    for name, row in ROWS.items():
        claim = f"[{row.claim}](#{name})"
        if name not in receipts:
            lines.append([claim, "", "", "not measured"])
            continue
        for line in (line for line in _effects(receipts[name]) if line["metric"] in ("mask_AP", "top1")):
            lines.append([claim, line["effect"], _difference(line), line["verdict"]])
            claim = ""
    return lines


def _section(row: Row, receipt: dict[str, Any] | None) -> list[str]:
    title = ["", f"## {row.name.capitalize()}", "", f"{row.claim[0].upper()}{row.claim[1:]}.", "", row.setting, ""]
    if receipt is None:
        return [*title, "Not measured.", ""]
    caveats = {ARMS[arm].dataset.caveat: None for arm in row.arms}
    effects = _effects(receipt)
    measured = {effect["effect"] for effect in effects}
    missing = [effect.claim for effect in row.effects if effect.claim not in measured]
    hardware = receipt["hardware"]
    return [
        *title,
        *_table(
            ("difference of", "metric", "difference", "seeds", "images", "verdict", "paper"),
            [
                [line["effect"], _NAMES[line["metric"]], _difference(line), line["seeds"], line["images"]]
                + [line["verdict"], line["paper"]]
                for line in effects
            ],
        ),
        *(["", f"Not measured: {'; '.join(missing)}."] if missing else []),
        "",
        *_arms(row, [line for line in receipt["figures"] if "commit" in line]),
        "",
        f"{'. '.join(caveats)}. {hardware['processor']}, {hardware['cores']} cores; "
        f"[evidence_{row.name}.json](evidence_{row.name}.json) has every training with its command and commit.",
        "",
    ]


def _effects(receipt: dict[str, Any]) -> list[dict[str, Any]]:
    return [line for line in receipt["figures"] if "effect" in line]


def _arms(row: Row, trainings: Sequence[dict[str, Any]]) -> list[str]:
    """Mean and standard deviation over the seeds."""
    metrics = [metric for metric in _NAMES if any(metric in training for training in trainings)]
    lines = []
    for arm in row.arms:
        runs = [training for training in trainings if training["arm"] == arm]
        if runs:
            cells = [_spread([run[metric] for run in runs if metric in run]) for metric in metrics]
            seconds = f"{min(run['seconds'] for run in runs)} to {max(run['seconds'] for run in runs)}"
            lines.append([arm, ", ".join(str(run["seed"]) for run in runs), *cells, seconds])
    return _table(("network", "seeds", *(_NAMES[metric] for metric in metrics), "seconds of training"), lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def _difference(line: dict[str, Any]) -> str:
    return f"{line['difference']:+.1f} ({line['low']:+.1f} to {line['high']:+.1f})"


def _table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> list[str]:
    rows = [head, ["---"] * len(head), *lines]
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


if __name__ == "__main__":
    if "--check" in sys.argv:
        same = (RESULTS / "EVIDENCE.md").read_text(encoding="utf-8") == page()
        sys.exit(0 if same else "results/EVIDENCE.md is out of date: python benchmarks/evidence_page.py")
    write_page()
