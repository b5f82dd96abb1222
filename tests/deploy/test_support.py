"""The table of what can be exported: complete, and the one that was tried."""

import json
from itertools import product
from pathlib import Path
from typing import get_args

from botformer.deploy.formats import FormatName, Precision
from botformer.deploy.support import SUPPORT
from botformer.exportable import ExportTask

RECEIPT = Path(__file__).parents[2] / "results/export_matrix.json"
TASKS = {"classifier": "classification", "backbone": "features"}
"""Of the networks of the receipt; the others are detectors."""


def test_every_combination_has_a_row_that_works_or_says_why_not():
    assert set(SUPPORT) == set(product(get_args(FormatName), get_args(ExportTask), get_args(Precision)))
    assert all(bool(row.sizes) != bool(row.refused) for row in SUPPORT.values())


def test_the_receipt_of_what_was_tried_says_the_same():
    tried = {}
    for row in json.loads(RECEIPT.read_text(encoding="utf-8"))["figures"]:
        said = row.get("sizes", ""), row.get("meaning", ""), row.get("refused", "")
        tried.setdefault((row["format"], TASKS.get(row["network"], "detection"), row["precision"]), set()).add(said)
        assert ("differences, traced" in row) != ("refused" in row)
    assert tried == {key: {(row.sizes, row.meaning, row.refused)} for key, row in SUPPORT.items()}
