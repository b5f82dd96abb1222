import json
from pathlib import Path

import pytest

from botformer.errors import InputError
from botformer.training.metrics_file import MetricsFile, finite_or_none, read_metrics


def written(path: Path, *steps: int) -> MetricsFile:
    metrics = MetricsFile(path, 0)
    for step in steps:
        metrics.write({"kind": "train", "step": step, "loss": 0.5})
    return metrics


def test_each_record_is_on_its_line_as_soon_as_it_is_written(tmp_path: Path) -> None:
    written(tmp_path / "m.jsonl", 1, 2)
    lines = (tmp_path / "m.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_resuming_drops_what_will_happen_again_and_a_half_written_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    written(path, 1, 2, 3, 4).close()
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    metrics = MetricsFile(path, 2)
    metrics.write({"kind": "train", "step": 3, "loss": 0.25})
    assert [(r["step"], r["loss"]) for r in read_metrics(path)] == [(1, 0.5), (2, 0.5), (3, 0.25)]


def test_starting_anew_forgets_the_record_of_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    written(tmp_path / "m.jsonl", 1, 2).close()
    MetricsFile(tmp_path / "m.jsonl", 0)
    assert read_metrics(tmp_path / "m.jsonl") == []


@pytest.mark.parametrize("line", ["{half", "[]", '"text"', '{"loss": 1}', ""])
def test_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "m.jsonl").write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(InputError, match="line 2"):
        read_metrics(tmp_path / "m.jsonl")


def test_numbers_that_json_cannot_say_become_null() -> None:
    assert finite_or_none({"a": 1.5, "b": float("nan"), "c": float("inf")}) == {"a": 1.5, "b": None, "c": None}
