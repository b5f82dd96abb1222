import pytest
import torch

from botformer.benchmark.comparison import Case, Implementation, run_case, run_cases
from botformer.benchmark.roofline import Peaks, measure_peaks

CPU = torch.device("cpu")
PEAKS = Peaks(matmul_gflops=100.0, copy_gb_per_s=10.0)


def returning(name, value, **more):
    def call(number):
        return torch.as_tensor(value, dtype=torch.float32)

    return Implementation(name, lambda: call, **more)


def test_rows_carry_labels_time_ratio_and_fraction_of_the_peak(monkeypatch):
    times = {"one": [5.0, 50.0, 5.0], "other": [10.0, 100.0, 11.0]}
    monkeypatch.setattr("botformer.benchmark.comparison.take_turns", lambda calls, *_, **__: times)
    case = Case({"map": "2x2"}, [returning("one", [1.0]), returning("other", [2.0], gflop=0.1)])
    one, other = run_case(case, 3, CPU, PEAKS)
    assert {"map", "implementation", "ms", "ratio", "peak_mib"} == set(one)
    assert (one["ms"], one["ratio"]) == (5, 1)
    assert (other["ms"], other["ratio"]) == (11, 2)
    assert other["of_peak"] == pytest.approx(0.1e9 / 11e-3 / 100e9, rel=0.01)


def test_implementations_with_different_results_are_not_timed():
    case = Case(
        {"map": "2x2"}, [returning("right", [1.0, 2.0], output="a"), returning("wrong", [1.0, 2.2], output="a")]
    )
    with pytest.raises(RuntimeError, match=r"map 2x2: wrong \(2,\) and right \(2,\) should compute the same"):
        run_case(case, 1, CPU, PEAKS)


def test_small_differences_and_other_outputs_pass():
    implementations = [
        returning("right", [1.0, 2.0], output="a"),
        returning("near", [1.0, 2.001], output="a"),
        returning("other", [7.0], output="b"),
        returning("free", [9.0]),
    ]
    assert len(run_case(Case({"n": 1}, implementations), 1, CPU, PEAKS)) == 4


def test_implementations_that_sample_are_compared_at_one_seed():
    implementations = [Implementation(name, lambda: lambda number: torch.rand(9), output="a") for name in "ab"]
    assert len(run_case(Case({"n": 1}, implementations), 1, CPU, PEAKS)) == 2


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(RuntimeError, match="bad returns numbers that are not finite"):
        run_case(Case({"n": 1}, [returning("bad", [float("nan")])]), 1, CPU, PEAKS)


def test_an_implementation_that_cannot_run_is_left_out_with_the_reason():
    def exhausted(number):
        raise torch.OutOfMemoryError

    implementations = [
        returning("absent", [1.0], unsupported_reason="is not installed"),
        Implementation("large", lambda: exhausted),
        returning("here", [1.0]),
    ]
    absent, large, here = run_case(Case({"n": 1}, implementations), 1, CPU, PEAKS)
    assert absent == {"n": 1, "implementation": "absent", "left_out": "is not installed"}
    assert large == {"n": 1, "implementation": "large", "left_out": "out of memory"}
    assert here["ratio"] == 1  # the first that runs


def test_third_party_code_may_fail_and_ours_may_not():
    def broken(number):
        raise TypeError("no such\nthing")

    (row,) = run_case(Case({"n": 1}, [Implementation("peer", lambda: broken, third_party=True)]), 1, CPU, PEAKS)
    assert row["left_out"] == "TypeError: no such"
    with pytest.raises(TypeError):
        run_case(Case({"n": 1}, [Implementation("ours", lambda: broken)]), 1, CPU, PEAKS)


def test_cases_beyond_the_time_limit_are_left_out_with_the_reason(monkeypatch):
    seconds = iter([0.0, 1.0, 121.0])
    monkeypatch.setattr("botformer.benchmark.comparison.monotonic", lambda: next(seconds))
    cases = [Case({"n": n}, [returning("one", [1.0])]) for n in range(2)]
    (first,), (second,) = run_cases(cases, 1, CPU, PEAKS, minutes=2)
    assert "ms" in first
    assert second == {"n": 1, "implementation": "all", "left_out": "the limit of 2 minutes was reached"}


def test_a_processor_multiplies_more_in_float32_than_in_float64():
    fast, slow = (measure_peaks(CPU, dtype, rounds=1) for dtype in (torch.float32, torch.float64))
    assert fast.matmul_gflops > slow.matmul_gflops > 0.1
    assert fast.copy_gb_per_s > 0.1
