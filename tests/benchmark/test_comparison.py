import time
from contextlib import contextmanager

import pytest
import torch

from botformer.benchmark.comparison import Case, DeviceLostError, Implementation, run_case
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
    assert other["tflops"] == pytest.approx(0.1e9 / 11e-3 / 1e12, rel=0.01)
    assert (one["ms"], one["ratio"]) == (5, 1)
    assert (other["ms"], other["ratio"]) == (11, 2)
    assert other["of_peak"] == pytest.approx(0.1e9 / 11e-3 / 100e9, rel=0.01)


@pytest.mark.parametrize(("third_party", "begins"), [(False, "WRONG: it and right"), (True, "it and right")])
def test_a_wrong_result_is_a_row_and_its_time_is_not_reported(third_party, begins):
    wrong = returning("wrong", [1.0, 2.2], output="a", third_party=third_party)
    case = Case({"map": "2x2"}, [returning("right", [1.0, 2.0], output="a"), wrong, returning("other", [1.0])])
    right, row, other = run_case(case, 1, CPU, PEAKS)
    assert set(row) == {"map", "implementation", "left_out"}
    assert row["left_out"].startswith(begins)
    assert "should compute the same, and output 0 differs by 0.089 of the norm" in row["left_out"]
    assert right["ms"] > 0
    assert other["ms"] > 0


def test_outputs_of_another_shape_are_wrong():
    implementations = [returning("right", [1.0, 1.0], output="a"), returning("wrong", [[1.0, 1.0]], output="a")]
    _, row = run_case(Case({"n": 1}, implementations), 1, CPU, PEAKS)
    assert row["left_out"] == "WRONG: it returns [(1, 2)], right [(2,)]; they should compute the same"


def test_outputs_are_compared_where_the_case_says():
    precise = []

    @contextmanager
    def precisely():
        precise.append(True)
        yield
        precise.pop()

    def rounding(name, by):
        return Implementation(name, lambda: lambda number: torch.tensor([1.0 if precise else by]), output="a")

    implementations = [rounding("up", 1.5), rounding("down", 0.5)]
    assert all("ms" in row for row in run_case(Case({}, implementations, 0.1, precisely), 1, CPU, PEAKS))
    assert "left_out" in run_case(Case({}, implementations, 0.1), 1, CPU, PEAKS)[1]


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


def test_numbers_that_are_not_finite_are_wrong():
    implementations = [returning("bad", [float("nan")], output="a"), returning("good", [1.0], output="a")]
    bad, good = run_case(Case({"n": 1}, implementations), 1, CPU, PEAKS)
    assert bad["left_out"] == "WRONG: it returns numbers that are not finite"
    assert good["ratio"] == 1


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


def failing_in_call(number_of_call):
    calls = []

    def call(number):
        calls.append(number)
        if len(calls) == number_of_call:
            raise TypeError("no such\nthing")

    return call


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("third_party", "reason"), [(False, "failed: TypeError: no such"), (True, "TypeError: no such")]
)
@pytest.mark.parametrize(
    "prepare",
    [
        lambda: _raise(TypeError("no such\nthing")),
        *(lambda count=count: failing_in_call(count) for count in (1, 2, 3)),
    ],
    ids=["prepare", "compare", "warm up", "a turn"],
)
def test_whatever_fails_is_a_row_and_the_others_are_measured(prepare, third_party, reason):
    peer = Implementation("peer", prepare, third_party=third_party)
    left, peer_row, right = run_case(
        Case({"n": 1}, [returning("left", [1.0]), peer, returning("right", [1.0])]), 2, CPU, PEAKS
    )
    assert peer_row == {"n": 1, "implementation": "peer", "left_out": reason}
    assert left["ms"] > 0
    assert right["ms"] > 0


def test_an_implementation_that_fails_only_when_its_memory_is_measured_is_left_out(monkeypatch):
    monkeypatch.setattr("botformer.benchmark.comparison.peak_bytes", lambda call, device: _raise(MemoryError("much")))
    (row,) = run_case(Case({"n": 1}, [returning("one", [1.0])]), 1, CPU, PEAKS)
    assert row["left_out"] == "failed: MemoryError: much"


def test_memory_that_no_call_allocates_is_not_reported():
    (row,) = run_case(Case({"n": 1}, [returning("graph", [1.0], allocates=False)]), 1, CPU, PEAKS)
    assert row["ms"] > 0
    assert "peak_mib" not in row


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: an illegal memory access was encountered"), torch.AcceleratorError("misaligned")],
)
def test_an_error_of_the_device_ends_the_case_and_says_whose_it_was(error):
    bad = Implementation("bad", lambda: lambda number: _raise(error))
    with pytest.raises(DeviceLostError) as lost:
        run_case(Case({"n": 1}, [returning("good", [1.0]), bad]), 1, CPU, PEAKS)
    assert lost.value.row["implementation"] == "bad"
    assert lost.value.row["left_out"].startswith(f"failed: {type(error).__name__}: ")


def test_fewer_rounds_than_asked_for_are_noted():
    slow = Implementation("slow", lambda: lambda number: time.sleep(0.02))
    (row,) = run_case(Case({"n": 1}, [slow]), 50, CPU, PEAKS, seconds=0.1)
    assert 3 <= row["rounds"] <= 5


def test_a_processor_multiplies_more_in_float32_than_in_float64():
    fast, slow = (measure_peaks(CPU, dtype, rounds=1) for dtype in (torch.float32, torch.float64))
    assert fast.matmul_gflops > slow.matmul_gflops > 0.1
    assert fast.copy_gb_per_s > 0.1
