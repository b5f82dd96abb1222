import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from botformer.errors import InputError
from botformer.training.run_log import MetricsFile, RunConsole, finite_or_none, read_metrics
from tests.training.toy import toy_batch


def record(step: int, images_per_s: float = 100.0) -> dict:
    numbers = {"epoch": step / 10, "loss": 1.25, "lr": 0.1, "images_per_s": images_per_s, "memory_mb": 321.0}
    return {"kind": "train", "step": step} | numbers


def test_lines_come_at_once_and_then_every_half_minute() -> None:
    text, now = io.StringIO(), 0.0
    console = RunConsole(0, 100, Console(file=text), clock=lambda: now)
    for step in range(1, 101):
        now = float(step)
        console.train(record(step))
    lines = text.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "31/100", "61/100", "91/100"]
    assert all(part in lines[1] for part in ("epoch 3.10", "loss 1.2500", "lr 1.00e-01", "100 img/s", "321 MB"))
    assert lines[1].endswith("0:01:09 left")


@pytest.mark.parametrize("done_before", [0, 900])
@pytest.mark.parametrize("terminal", [False, True])
def test_first_step_of_a_session_neither_predicts_nor_counts(terminal: bool, done_before: int) -> None:
    """A compiled network: the first step takes a minute, every other one a second."""

    def shown_after(steps: int) -> str:
        text, now = io.StringIO(), 0.0
        out = Console(file=text, force_terminal=terminal, width=150)
        console = RunConsole(done_before, done_before + 100, out, clock=lambda: now)
        for step in range(1, steps + 1):
            now += 60.0 if step == 1 else 1.0
            console.train(record(done_before + step, images_per_s=1.0 if step == 1 else 64.0))
        console.close()
        return text.getvalue()

    first = shown_after(1)
    assert f"{done_before + 1}/{done_before + 100}" in first
    assert "loss 1.2500" in first
    assert "left" not in first
    assert "img/s" not in first
    assert "64 img/s  0:01:09 left" in shown_after(31)


def test_terminal_gets_one_bar_and_notes_above_it() -> None:
    text = io.StringIO()
    console = RunConsole(0, 10, Console(file=text, force_terminal=True, width=150))
    console.train(record(2))
    console.train(record(3))
    console.note("evaluation [0.5] after step 3")
    console.close()
    assert "3/10" in text.getvalue()
    assert "100 img/s" in text.getvalue()
    assert "evaluation [0.5] after step 3" in text.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_evaluation_has_a_bar_of_its_own_on_a_terminal_only(terminal: bool) -> None:
    text = io.StringIO()
    console = RunConsole(0, 10, Console(file=text, force_terminal=terminal, width=150))
    batches = [toy_batch(number) for number in range(3)]
    for number, batch in enumerate(console.evaluating(batches)):
        assert batch is batches[number]
        if number == 2 and console._bar:
            console._bar.refresh()
    console.train(record(1))
    console.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())
    assert bool(re.search("evaluation +2/3", plain)) is terminal
    assert plain.rindex("1/10") > plain.rfind("evaluation")


def written(path: Path, *steps: int) -> MetricsFile:
    metrics = MetricsFile(path, 0, 0)
    for step in steps:
        metrics.write({"kind": "train", "step": step, "epoch": 0.1, "loss": 0.5})
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
    metrics = MetricsFile(path, 2, 2)
    metrics.write({"kind": "train", "step": 3, "epoch": 0.1, "loss": 0.25})
    assert [(r["step"], r["loss"]) for r in read_metrics(path)] == [(1, 0.5), (2, 0.5), (3, 0.25)]


def test_evaluation_that_the_checkpoint_does_not_know_of_will_happen_again(tmp_path: Path) -> None:
    """The run was killed after it had written the record, and before the checkpoint had it."""
    path = tmp_path / "m.jsonl"
    metrics = MetricsFile(path, 0, 0)
    for step in (4, 8):
        metrics.write({"kind": "train", "step": step, "epoch": 0.1, "loss": 0.5})
        metrics.write({"kind": "evaluation", "step": step, "epoch": 0.1, "accuracy": 0.5})
    metrics.close()
    MetricsFile(path, 8, 4).close()
    assert [(r["kind"], r["step"]) for r in read_metrics(path)] == [("train", 4), ("evaluation", 4), ("train", 8)]
    MetricsFile(path, 8, 8).close()
    assert len(read_metrics(path)) == 3


def test_starting_anew_forgets_the_record_of_a_run_without_a_checkpoint(tmp_path: Path) -> None:
    written(tmp_path / "m.jsonl", 1, 2).close()
    MetricsFile(tmp_path / "m.jsonl", 0, 0)
    assert read_metrics(tmp_path / "m.jsonl") == []


GOOD = '{"kind": "train", "step": 1, "epoch": 0.1}'


@pytest.mark.parametrize("line", ["{half", "[]", '"text"', '{"loss": 1}', "", GOOD.replace("1,", '"1",')])
def test_broken_line_in_the_middle_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "m.jsonl").write_text(f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(InputError, match="line 2"):
        read_metrics(tmp_path / "m.jsonl")


@pytest.mark.parametrize("half", ["{", '{"kind": "tra', GOOD])
def test_last_line_that_is_still_being_written_is_left_out(tmp_path: Path, half: str) -> None:
    (tmp_path / "m.jsonl").write_text(f"{GOOD}\n{half}")
    assert len(read_metrics(tmp_path / "m.jsonl")) == 1


def test_null_bytes_that_a_power_cut_left_at_the_end_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(f"{GOOD}\n{GOOD[:9]}".encode() + bytes(300))
    assert len(read_metrics(path)) == 1
    MetricsFile(path, 1, 1).close()
    assert path.read_text() == f"{GOOD}\n"
    path.write_bytes(f"{GOOD}\n".encode() + bytes(300) + f"\n{GOOD}\n".encode())
    with pytest.raises(InputError, match="line 2"):
        read_metrics(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.jsonl does not exist"):
        read_metrics(tmp_path / "m.jsonl")


def test_numbers_that_json_cannot_say_become_null() -> None:
    assert finite_or_none({"a": 1.5, "b": float("nan"), "c": float("inf")}) == {"a": 1.5, "b": None, "c": None}


def test_a_journal_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep.jsonl").write_text("[" * 10**5 + "\n")
    with pytest.raises(InputError, match=r"deep\.jsonl, line 1, is not a record"):
        read_metrics(tmp_path / "deep.jsonl")
    with pytest.raises(InputError, match="cannot be read: is a folder"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("value", ["'fast'", [1], {}, True])
def test_a_record_holds_numbers(tmp_path: Path, value: object) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps(record(1) | {"images_per_s": value}) + "\n")
    with pytest.raises(InputError, match="line 1, is not a record"):
        read_metrics(tmp_path / "m.jsonl")
