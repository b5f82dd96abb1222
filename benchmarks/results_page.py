"""results/*.json -> results/RESULTS.md. `--check` fails if the page does not match the receipts."""

import json
import sys
from pathlib import Path
from typing import Any

from goals import table as goals_table

RESULTS = Path(__file__).parents[1] / "results"

HEAD = """# Results

Generated from the receipts in this folder by `python benchmarks/results_page.py`; every number here was measured by us.
A receipt records the command, the commit, the seed, the machine and the versions.
In older receipts, column names and wording were changed to today's; figures were not. The command and the commit are
those of the measurement. Receipts whose names begin with evidence_ have a page of their own,
[EVIDENCE.md](EVIDENCE.md).
"""

GOALS = """## Speed and memory: goals and measurements

Quotients of figures of one run, from the receipts below; empty where nothing was measured.
[docs/attention.md](../docs/attention.md) explains what limits the goals that are not reached.
"""


def page(folder: Path = RESULTS) -> str:
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("evidence_"))
    receipts = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return "\n".join([HEAD, GOALS, _table(goals_table(receipts)), "", *(_section(receipt) for receipt in receipts)])


def _section(receipt: dict[str, Any]) -> str:
    hardware = receipt["hardware"]
    machine = f"{hardware['processor']}, {hardware['cores']} cores, GPU: {hardware['gpu'] or 'none'}"
    lines = [
        f"## {receipt['title']}",
        "",
        _table(receipt["figures"]),
        "",
        f"`{receipt['command']}` ({machine}; torch {receipt['versions'].get('torch')}; seed {receipt['seed']}; commit "
        f"{receipt['commit'][:10]}; {receipt['date']}). [{receipt['name']}.json]({receipt['name']}.json)",
        "",
    ]
    return "\n".join(lines + ([receipt["notes"], ""] if receipt["notes"] else []))


def _table(figures: Any) -> str:
    """Markdown: a list of rows as a table with their keys as its head; one set of figures as a table of one row."""
    rows = figures if isinstance(figures, list) else [figures]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [keys, ["---"] * len(keys), *([_cell(row.get(key)) for key in keys] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    path = RESULTS / "RESULTS.md"
    if "--check" in sys.argv:
        sys.exit(
            "results/RESULTS.md is out of date: python benchmarks/results_page.py" if path.read_text() != page() else 0
        )
    path.write_text(page(), encoding="utf-8")
