"""A suite that goes on where an earlier call ended."""

import json

import pytest
import torch

from botformer.benchmark import receipt, run_suite
from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.roofline import Peaks
from botformer.benchmark.suite_rows import SuiteRows


class Suite:
    """Two cases of two implementations; `behaviour` says what a call of one does. Counts calls by name."""

    def __init__(self):
        self.behaviour = {}
        self.calls = []

    def cases(self, device, quick):
        return [
            Case({"n": n}, [self._implementation(f"{name}{n}", name == "theirs") for name in ("ours", "theirs")])
            for n in (1, 2)
        ]

    def _implementation(self, name, third_party):
        def call(number):
            self.calls.append(name)
            self.behaviour.get(name, lambda: None)()
            return torch.ones(2)

        return Implementation(name, lambda: call, third_party=third_party)


@pytest.fixture
def suite(monkeypatch):
    suite = Suite()
    monkeypatch.setattr(run_suite, "import_module", lambda name: suite)
    monkeypatch.setattr(run_suite, "measure_peaks", lambda device, dtype, rounds: Peaks(100.0, 10.0))
    monkeypatch.setattr(run_suite, "draw_benchmark", lambda receipt, out: out.touch())
    monkeypatch.setattr("botformer.benchmark.comparison.peak_bytes", lambda call, device: 1)
    monkeypatch.setattr("botformer.benchmark.comparison.free", lambda device: None)  # slow late in a long run of tests
    return suite


def run(folder, resume=True, **options):
    return run_suite.run_suite("attention", "cpu", folder, "command", quick=True, resume=resume, **options)


def fails(error):
    def behave():
        raise error

    return behave


def figures(folder):
    return json.loads((folder / "attention_cpu_quick.json").read_text())["figures"]


def test_the_receipt_is_there_after_every_case_and_a_second_call_measures_the_rest(suite, tmp_path):
    suite.behaviour["ours2"] = fails(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert [row["implementation"] for row in figures(tmp_path)] == ["ours1", "theirs1", "all"]
    assert (tmp_path / "attention_cpu_quick.png").exists()
    first = figures(tmp_path)[:2]
    suite.behaviour.clear()
    suite.calls.clear()
    result = run(tmp_path)
    assert set(suite.calls) == {"ours2", "theirs2"}
    assert result.left == 0
    assert figures(tmp_path)[:2] == first
    assert [row["implementation"] for row in figures(tmp_path)] == ["ours1", "theirs1", "ours2", "theirs2"]
    assert "Measured in several calls." in json.loads(result.receipt.read_text())["notes"]


def test_a_call_without_resume_measures_everything_again(suite, tmp_path):
    run(tmp_path)
    suite.calls.clear()
    assert "several calls" not in json.loads(run(tmp_path, resume=False).receipt.read_text())["notes"]
    assert set(suite.calls) == {"ours1", "theirs1", "ours2", "theirs2"}


@pytest.mark.parametrize(
    ("key", "value"), [("commit", "b" * 40), ("versions", {}), ("hardware", {"gpu": None, "processor": "another"})]
)
def test_a_receipt_of_other_circumstances_is_begun_anew_and_that_is_said(suite, tmp_path, caplog, key, value):
    path = run(tmp_path).receipt
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    suite.calls.clear()
    with caplog.at_level("INFO"):
        run(tmp_path)
    assert f"begun anew, not continued: its {key} is another" in caplog.text
    assert set(suite.calls) == {"ours1", "theirs1", "ours2", "theirs2"}


def test_cases_for_which_no_time_is_left_are_to_be_done(suite, tmp_path, monkeypatch):
    seconds = iter([0.0, 1.0, 121.0])
    monkeypatch.setattr(run_suite, "monotonic", lambda: next(seconds))
    result = run(tmp_path, minutes=2)
    assert result.left == 1
    assert figures(tmp_path)[-1] == {"n": 2, "implementation": "all", "left_out": "to be done"}


def test_what_of_ours_is_wrong_or_fails_is_named(suite, tmp_path):
    suite.behaviour |= {"ours1": fails(TypeError("no")), "theirs2": fails(TypeError("no"))}
    result = run(tmp_path)
    assert result.faults == ["1, ours1, failed: TypeError: no"]
    assert result.left == 0
    assert [row.get("left_out") for row in figures(tmp_path)] == [
        "failed: TypeError: no",
        None,
        None,
        "TypeError: no",
    ]


def test_after_an_error_of_the_device_the_call_ends_and_the_next_one_goes_on_without_the_culprit(suite, tmp_path):
    suite.behaviour["ours1"] = fails(torch.AcceleratorError("CUDA error: misaligned address"))
    result = run(tmp_path)
    assert result.device_lost == "failed: AcceleratorError: CUDA error: misaligned address"
    assert result.left == 2
    assert "ours2" not in suite.calls
    suite.calls.clear()
    result = run(tmp_path)
    assert set(suite.calls) == {"theirs1", "ours2", "theirs2"}
    assert (result.left, result.device_lost) == (0, "")
    assert [row.get("left_out", "") for row in figures(tmp_path)] == [
        "failed: AcceleratorError: CUDA error: misaligned address",
        "",
        "",
        "",
    ]


def test_a_case_during_which_two_calls_ended_is_not_begun_again():
    (case, other) = Suite().cases(None, True)
    rows = SuiteRows([case, other])
    for _ in range(2):
        assert rows.begin(case) is not None
        rows = SuiteRows(
            [case, other], json.loads(json.dumps(rows.rows))
        )  # the process died, a new one reads the receipt
    assert rows.left == 2
    assert rows.begin(case) is None
    assert rows.is_done(case)
    assert rows.left == 1
    assert rows.faults == ["1, all, failed: two calls ended during this case"]


def test_a_receipt_says_where_its_figures_come_from_when_it_was_begun(tmp_path, monkeypatch):
    origin = receipt.receipt_origin()
    monkeypatch.setattr(receipt, "receipt_origin", lambda: pytest.fail("asked again"))
    written = json.loads(receipt.write_receipt(tmp_path / "x.json", "t", "c", [], origin=origin).read_text())
    assert {key: written[key] for key in origin} == origin
