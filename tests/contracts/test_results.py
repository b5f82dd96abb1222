"""Every published number comes from a receipt that records how it was measured."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECEIPTS = sorted((ROOT / "results").glob("*.json"))


def test_there_are_receipts():
    assert RECEIPTS


@pytest.mark.parametrize("path", RECEIPTS, ids=lambda path: path.stem)
def test_a_receipt_records_how_to_measure_again(path):
    receipt = json.loads(path.read_text(encoding="utf-8"))
    assert receipt["name"] == path.stem
    assert len(receipt["commit"]) == 40
    for field in ("title", "command", "date", "hardware", "versions", "figures"):
        assert receipt[field], field
    text = path.read_text(encoding="utf-8")
    assert not any(f"/{place}/" in text for place in ("root", "home", "work", "opt", "tmp")), "a path of one machine"


def test_the_results_page_matches_the_receipts():
    subprocess.run([sys.executable, "benchmarks/results_page.py", "--check"], cwd=ROOT, check=True)


def test_the_evidence_page_matches_the_receipts():
    subprocess.run([sys.executable, "benchmarks/evidence_page.py", "--check"], cwd=ROOT, check=True)


def test_receipts_of_evidence_say_what_the_kept_trainings_say(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    evidence, rows = import_module("evidence"), import_module("evidence_rows").ROWS
    checked = []
    for row in rows.values():
        lines, effects = evidence.of_kept_trainings(row, ROOT / "results")
        receipt = ROOT / "results" / f"evidence_{row.name}.json"
        figures = json.loads(receipt.read_text(encoding="utf-8"))["figures"] if receipt.is_file() else []
        trained = {(line["arm"], line["seed"]) for line in figures if "commit" in line}
        if effects and trained <= {(line["arm"], line["seed"]) for line in lines}:
            assert all(line in figures for line in [*lines, *effects])
            checked.append(row.name)
    assert checked == ["long-schedule", "image-size"]  # of the others not all trainings are kept


def test_every_goal_on_a_cpu_finds_its_figures(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    rows = import_module("goals").table([json.loads(path.read_text(encoding="utf-8")) for path in RECEIPTS])
    empty = [row["what"] for row in rows if row["what"].startswith("CPU") and row["ours"] is None]
    assert not empty, "renamed in goals.py or in the receipts, but not in both"


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.png")), ids=lambda path: path.stem)
def test_a_chart_has_its_receipt(path):
    if path.stem == "evidence":  # of several
        assert [receipt for receipt in RECEIPTS if receipt.stem.startswith("evidence_")]
    else:
        assert path.with_suffix(".json") in RECEIPTS
