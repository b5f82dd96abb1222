"""The rows of a suite by case: which cases are done, which are to be done, and what an earlier call left of them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from botformer.benchmark.comparison import FAILED, WRONG, Case, Row

ALL = "all"
"""In the column "implementation": the row is about the case."""
TO_DO = "to be done"
_BEGUN, _BEGUN_AGAIN = f"{TO_DO}; an earlier call ended during this case", f"{TO_DO}; two calls ended during this case"
_GIVEN_UP = f"{FAILED}two calls ended during this case"


class SuiteRows:
    """What is known of each case; `rows` is the content of the receipt.

    A case that is not done has a row about the case that says so, beside those of implementations that are not to be
    tried again. It is written before the case begins, so that it is also there if the process dies.
    """

    def __init__(self, cases: Sequence[Case], earlier: Sequence[Row] = ()) -> None:
        self._by_case: dict[str, list[Row]] = {}
        for case in cases:
            known = [row for row in earlier if row | case.labels == row]
            self._by_case[case.describe()] = known or [_about(case, TO_DO)]

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self._by_case.values() for row in rows]

    @property
    def left(self) -> int:
        """Cases that are to be done."""
        return sum(_state(rows).startswith(TO_DO) for rows in self._by_case.values())

    @property
    def faults(self) -> list[str]:
        """Results of ours that were wrong, and implementations of ours that failed, in words."""
        return [
            ", ".join(f"{value}" for value in row.values())
            for row in self.rows
            if row.get("left_out", "").startswith((WRONG, FAILED))
        ]

    def of(self, case: Case) -> list[Row]:
        return self._by_case[case.describe()]

    def is_done(self, case: Case) -> bool:
        return not _state(self.of(case)).startswith(TO_DO)

    def begin(self, case: Case) -> Case | None:
        """The case without the implementations that are not to be tried again; None if two calls ended during it."""
        state, kept = _state(self.of(case)), _about_implementations(self.of(case))
        following = {_BEGUN: _BEGUN_AGAIN, _BEGUN_AGAIN: _GIVEN_UP}.get(state, _BEGUN)
        self._by_case[case.describe()] = [*kept, _about(case, following)]
        if following == _GIVEN_UP:
            return None
        reasons = {row["implementation"]: row["left_out"] for row in kept}
        return replace(
            case,
            implementations=[
                replace(one, unsupported_reason=reasons.get(one.name, one.unsupported_reason))
                for one in case.implementations
            ],
        )

    def finish(self, case: Case, rows: list[Row]) -> None:
        self._by_case[case.describe()] = rows

    def postpone(self, case: Case, row: Row) -> None:
        """The case is to be done again without the implementation of this row."""
        kept = _about_implementations(self.of(case))
        self._by_case[case.describe()] = [*kept, row, _about(case, TO_DO)]


def earlier_rows(receipt: Path, expected: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The content of a receipt if it was made under the same circumstances, and otherwise the reason why it was not.

    Args:
        expected: entries of the receipt; of the hardware only the GPU counts, or the processor where there is none.
    """
    try:
        found = json.loads(receipt.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError) as error:
        return None, f"it cannot be read ({error})"
    for key, value in expected.items():
        before = found.get(key)
        if key == "hardware":
            part = "gpu" if value["gpu"] else "processor"
            before, value = (before or {}).get(part), value[part]
        if before != value:
            return None, f"its {key.replace('_', ' ')} is another: {before}, now {value}"
    return found, ""


def _about(case: Case, state: str) -> Row:
    return case.labels | {"implementation": ALL, "left_out": state}


def _state(rows: list[Row]) -> str:
    """ "" if the case is done."""
    return next((row["left_out"] for row in rows if row["implementation"] == ALL), "")


def _about_implementations(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["implementation"] != ALL]
