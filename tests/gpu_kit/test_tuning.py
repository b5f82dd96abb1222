"""The tuner: what is wrong is never timed, what kills the process is not tried again, the package reads the winners."""

import json
from dataclasses import asdict

import pytest
import torch

from benchmarks.gpu import choose_backends, tables, tuning
from benchmarks.gpu.step_arguments import Clock
from benchmarks.gpu.tuning import Case, Problem, Search, Tuner
from botformer.attention import triton_blocks
from botformer.attention.definition import attention_by_definition
from botformer.attention.operation import average_cells
from botformer.attention.triton_blocks import Blocks, find_blocks, untuned_blocks

CASE = Case("float32", 16, 4, 6, (1, 2))
CPU = torch.device("cpu")
FAST, WRONG, BROKEN, SLOW = (Blocks(queries, 16, 4, 1) for queries in (16, 32, 64, 128))


@pytest.fixture
def kernels(monkeypatch):
    """Stand-ins: the result is the definition's but for WRONG, BROKEN raises, and FAST takes half of the time.

    Returns the block sizes that were run, in order.
    """
    ran = []

    def by_kernels(self, blocks):
        ((_, one),) = blocks.items()
        ran.append(one)
        if one == BROKEN:
            raise RuntimeError("out of resources\nand so on")
        results = self.by_definition(torch.float32)
        return results | {"d_v": results["d_v"] * 1.01} if one == WRONG else results

    monkeypatch.setattr(Problem, "by_kernels", by_kernels)
    monkeypatch.setattr(Problem, "launch", lambda self, kernel, blocks: blocks)
    monkeypatch.setattr(
        tuning, "take_turns", lambda calls, *_: {name: [0.5 if one == FAST else 1.0] for name, one in calls.items()}
    )
    return ran


def tuner(folder):
    return Tuner(folder, CPU, quick=True)


SEARCHES = [Search(CASE, kernel, (FAST, WRONG, BROKEN, SLOW)) for kernel in tuning.KERNELS]


def tune(folder, searches=SEARCHES):
    """The rows of the receipt."""
    one = tuner(folder)
    one.tune(CASE, [search for search in searches if not one.row(search)], Clock(60))
    return json.loads((folder / "tuning_cpu_quick.json").read_text())["figures"]


def test_the_fastest_right_candidate_wins_and_the_package_reads_it(kernels, tmp_path, monkeypatch):
    rows = tune(tmp_path)
    assert [(row["kernel"], row["queries"], row["time / before"]) for row in rows] == [
        (kernel, FAST.queries, 0.5) for kernel in tuning.KERNELS
    ]
    assert [(row["tried"], row["right"]) for row in rows] == [(5, 3)] * 3  # the four and the untuned
    log = json.loads((tmp_path / "logs/tuning_candidates.json").read_text())
    problems = {Blocks(row["queries"], row["keys"], row["warps"], row["stages"]): row for row in log}
    assert problems[WRONG]["problem"].startswith("WRONG: d_v is off by")
    assert problems[BROKEN]["problem"] == "RuntimeError: out of resources"
    assert "time / before" not in problems[WRONG]

    monkeypatch.setattr(triton_blocks, "TUNING_FILE", tmp_path / tables.TUNING_FILE.name)
    triton_blocks._tuned_rows.cache_clear()
    assert find_blocks("forward", (9, 0), "float32", 16, (4, 6)) == FAST
    assert find_blocks("forward", (8, 0), "float32", 16, (4, 6)) == untuned_blocks("forward", (8, 0), "float32", 16)
    triton_blocks._tuned_rows.cache_clear()


def test_a_later_call_does_not_try_again_what_was_tried(kernels, tmp_path):
    rows, count = tune(tmp_path), len(kernels)
    assert tune(tmp_path) == rows
    assert len(kernels) == count


def test_what_ran_when_the_process_died_is_not_tried_again(kernels, tmp_path):
    tuner(tmp_path).running.write_text(json.dumps(SEARCHES[0].labels | asdict(FAST)))
    rows = tune(tmp_path)
    assert (rows[0]["kernel"], rows[0]["time / before"]) == ("forward", 1.0)
    assert rows[1]["queries"] == FAST.queries


def test_a_cuda_error_ends_the_process_and_is_remembered(kernels, tmp_path, monkeypatch):
    def poisoned(self, blocks):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Problem, "by_kernels", poisoned)
    with pytest.raises(SystemExit) as end:
        tune(tmp_path)
    assert end.value.code == 75
    (entry,) = tuner(tmp_path).tried
    assert "illegal memory access" in entry["problem"]


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("at_once", [1, 24**2 * 2, 2**27])
def test_the_reference_in_parts_is_that_of_the_whole(pool, at_once, monkeypatch):
    monkeypatch.setattr(tuning, "LOGITS_AT_ONCE", at_once)
    problem = Problem(Case("float32", 16, 4, 6, (3,), pool), 3, CPU)
    leaves = [x.double().requires_grad_() for x in (*problem.maps, *problem.tables)]
    out = attention_by_definition(*leaves)
    out = average_cells(out) if pool else out
    expected = [out, *torch.autograd.grad(out, leaves, problem.d_out.double())]
    for result, one in zip(problem.by_definition(torch.float64).values(), expected, strict=True):
        torch.testing.assert_close(result, one)


def test_the_backend_is_the_fastest_over_all_batch_sizes_that_it_ran_at():
    def rows(size, which, **times):
        return [
            {"map": size, "batch": batch, "pass": which, "implementation": name.replace("_", ", "), "ms": ms}
            for name, both in times.items()
            for batch, ms in zip((1, 8), both, strict=False)
        ]

    figures = [
        *rows("64x64", "both", ours_triton=(1.0, 4.0), ours_sdpa=(3.0, 3.0), timm=(0.1, 0.1)),
        *rows("14x14", "both", ours_triton=(2.0, 2.0), ours_sdpa=(1.0,)),  # wrong, or out of memory, at a batch of 8
        {"map": "14x14", "batch": 8, "pass": "both", "implementation": "ours, sdpa", "left_out": "WRONG: ..."},
    ]
    chosen = {(row["height"], row["width"]): row["backend"] for row in choose_backends.choose(figures)}
    assert chosen == {(64, 64): "triton", (14, 14): "triton"}


def test_tables_of_other_cards_stay(tmp_path, monkeypatch):
    package = tmp_path / "package" / "triton_tuning.json"
    package.parent.mkdir()
    other, row = {"card": "A100", "rows": [{"height": 1}]}, {"kernel": "forward", "height": 64, "warps": 8}
    package.write_text(json.dumps({"8.0": other}))
    monkeypatch.setattr(tables, "TABLES", (package,))

    def installed(card: str, *rows: dict) -> dict:
        tables.store(package, "9.0", {"card": card, "rows": list(rows)}, tmp_path)
        assert tables.install(tmp_path) == ["triton_tuning.json"]
        return json.loads(package.read_text())

    assert installed("H100", row, row | {"height": 14}) == {
        "8.0": other,
        "9.0": {"card": "H100", "rows": [row, row | {"height": 14}]},
    }
    # A call that ended early: what it did not measure again stays.
    assert installed("H100", row | {"warps": 4})["9.0"]["rows"] == [row | {"warps": 4}, row | {"height": 14}]
    assert installed("H200", row)["9.0"] == {"card": "H200", "rows": [row]}


class _AbsentGpu:
    """What Triton asks a driver before it compiles: a GPU of capability 9.0 that nothing can run on."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return pytest.importorskip("triton.backends.compiler").GPUTarget("cuda", 90, 32)


def test_candidates_compile_ahead_as_they_will_be_launched(tmp_path, monkeypatch):
    """By the way that the other processes take on a GPU machine, up to the kernel's binary in Triton's cache."""
    driver = pytest.importorskip("triton.runtime").driver
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", _AbsentGpu())
    Problem(Case("bfloat16", 16, 4, 6, (1,)), 1, CPU).compile("forward", Blocks(64, 16, 4, 1))
    Problem(Case("bfloat16", 16, 4, 6, (1,), pool=True), 1, CPU).compile("key_gradient", Blocks(64, 16, 4, 1))
    assert len(list(tmp_path.rglob("*.cubin"))) == 2
