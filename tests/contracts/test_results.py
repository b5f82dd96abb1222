"""Every published number comes from a receipt that says how it was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECEIPTS = sorted((ROOT / "results").glob("*.json"))


def test_there_are_receipts():
    assert RECEIPTS


@pytest.mark.parametrize("path", RECEIPTS, ids=lambda path: path.stem)
def test_a_receipt_says_how_to_measure_again(path):
    receipt = json.loads(path.read_text(encoding="utf-8"))
    assert receipt["name"] == path.stem
    assert len(receipt["commit"]) == 40
    for field in ("title", "command", "date", "hardware", "versions", "figures"):
        assert receipt[field], field
    text = path.read_text(encoding="utf-8")
    assert not any(f"/{place}/" in text for place in ("root", "home")), "a path of one machine"


def test_the_results_page_is_what_the_receipts_say():
    subprocess.run([sys.executable, "benchmarks/results_page.py", "--check"], cwd=ROOT, check=True)
