"""results/evidence_*.json -> results/EVIDENCE.md with its chart. `--check` fails if the page does not match them."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from evidence_chart import draw_evidence
from evidence_rows import ARMS, ROWS, SEEDS, Row

RESULTS = Path(__file__).parents[1] / "results"
CHART = "evidence.png"
HEAD = """# Evidence in small

The paper's claims are of full-size networks on ImageNet and COCO, which have not been trained here. This page asks
what of them can be seen in minutes to little more than an hour on one core: the paper's comparisons with networks of
half width, real images, and several seeds, in schedules of our own, which each section names. ImageNet weights are
those of Yahoo's open_nsfw, a ResNet-50 of half width that was trained on ImageNet and then to tell two other classes
apart.
`python benchmarks/evidence.py --data FOLDER` trains what is missing and generates this page from the receipts.

* A **difference** is of means over seeds, in points of AP or accuracy, with its 95 % interval over validation images
  (paired bootstrap) and seeds (Student's t), which is wide for three seeds. Above 0, the claim holds.
* **Verdict**: "holds in small" where the whole interval is above 0, "does not hold" where it is below, else it cannot
  be decided with so many seeds and images. No correction for the number of comparisons: of twenty differences that are
  really 0, one may be judged otherwise. "At the second look": three seeds had been looked at, then two were added;
  who looks twice errs more often than once in twenty.
* What comparisons need of a training is kept in the folder `results/evidence`, so that seeds and rows can be added in
  other sittings and on other machines. It began with the row of 16 epochs; of earlier trainings the receipts alone are
  left. So the networks of 4 epochs at 256 px that 16 epochs and other sizes are compared with are other trainings than
  those of the sections before, with the same seeds: another processor rounds otherwise, which changes a training too,
  here by less than another seed.
* **Seconds** of training were taken beside other trainings on the same cores. They tell what a row costs and do not
  compare networks.
* The **paper's** figures are other networks, data and schedules: a sign to compare with, not a size.
"""
_NAMES = {
    "mask_AP": "mask AP",
    "mask_APs": "mask AP, small",
    "mask_APm": "mask AP, medium",
    "mask_APl": "mask AP, large",
    "box_AP": "box AP",
    "top1": "top-1",
}


def write_page(results: Path = RESULTS) -> None:
    """EVIDENCE.md and evidence.png."""
    receipts = _receipts(results)
    if receipts:
        draw_evidence(
            [(ROWS[name].title, _main_effects(receipt)) for name, receipt in receipts.items()], results / CHART
        )
    (results / "EVIDENCE.md").write_text(page(results), encoding="utf-8")


def _receipts(results: Path) -> dict[str, dict[str, Any]]:
    """By the names of their rows, as far as there are any."""
    paths = {name: results / f"evidence_{name}.json" for name in ROWS}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}


def page(results: Path = RESULTS) -> str:
    receipts = _receipts(results)
    chart = [f"![Differences with their intervals]({CHART})", ""] if receipts else []
    lines = [
        HEAD,
        "## All of it",
        "",
        *chart,
        *_table(("claim", "measured", "difference", "verdict"), _summary(receipts)),
        "",
    ]
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
        for line in _main_effects(receipts[name]):
            lines.append([claim, line["effect"], _difference(line), _verdict(line)])
            claim = ""
    return lines


def _section(row: Row, receipt: dict[str, Any] | None) -> list[str]:
    title = [
        "",
        f"## {row.name.replace('-', ' ').capitalize()}",
        "",
        f"{row.claim[0].upper()}{row.claim[1:]}.",
        "",
        row.setting,
        "",
    ]
    if receipt is None:
        return [*title, "Not measured.", ""]
    caveats = {ARMS[arm].dataset.caveat: None for arm in row.arms}
    effects = _effects(receipt)
    measured = {effect["effect"] for effect in effects}
    missing = [effect.claim for effect in row.effects if effect.claim not in measured]
    papers = {(effect.claim, metric): text for effect in row.effects for metric, text in effect.paper.items()}
    trainings = [line for line in receipt["figures"] if "commit" in line]
    machine = receipt["hardware"]
    processors = sorted({line.get("processor", machine["processor"]) for line in trainings})
    return [
        *title,
        *_table(
            ("difference of", "metric", "difference", "seeds", "images", "verdict", "paper"),
            [
                [line["effect"], _NAMES[line["metric"]], _difference(line), line["seeds"], line["images"]]
                + [_verdict(line), papers.get((line["effect"], line["metric"]), "")]
                for line in effects
            ],
        ),
        *(["", f"Too few seeds for a comparison: {'; '.join(missing)}."] if missing else []),
        "",
        *_arms(row, trainings),
        "",
        f"{'. '.join(caveats)}. {', '.join(processors)}, {machine['cores']} cores; "
        f"[evidence_{row.name}.json](evidence_{row.name}.json) has every training with its command and commit.",
        "",
    ]


def _effects(receipt: dict[str, Any]) -> list[dict[str, Any]]:
    return [line for line in receipt["figures"] if "effect" in line]


def _main_effects(receipt: dict[str, Any]) -> list[dict[str, Any]]:
    """Those in the metrics that data sets are measured by."""
    return [line for line in _effects(receipt) if line["metric"] in ("mask_AP", "top1")]


def _arms(row: Row, trainings: Sequence[dict[str, Any]]) -> list[str]:
    """Mean and standard deviation over the seeds."""
    metrics = [metric for metric in _NAMES if any(metric in training for training in trainings)]
    lines = []
    for arm in row.arms:
        runs = [training for training in trainings if training["arm"] == arm]
        if runs:
            cells = [_spread([run[metric] for run in runs if metric in run]) for metric in metrics]
            seconds = " to ".join(dict.fromkeys(str(of(run["seconds"] for run in runs)) for of in (min, max)))
            lines.append([arm, ", ".join(str(run["seed"]) for run in runs), *cells, seconds])
    return _table(("network", "seeds", *(_NAMES[metric] for metric in metrics), "seconds of training"), lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{mean(values):.1f} ± {stdev(values):.1f}" if len(values) > 1 else f"{values[0]:.1f}"


def _verdict(line: dict[str, Any]) -> str:
    if line["low"] == line["high"] == 0:
        return "both the same, of every seed: nothing is decided"
    if line["low"] <= 0 <= line["high"]:
        return f"{line['verdict']} and {line['images']} images"
    return f"{line['verdict']}, at the second look" if line["seeds"] > len(SEEDS) else line["verdict"]


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
