"""The fused kernels in Triton's interpreter, and what can be tested without it and without a GPU."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from botformer.attention import backends, relative_attention_2d, triton_blocks
from botformer.attention.triton_blocks import POOLED_KEY_GRADIENT, ROWS, Blocks, find_blocks, untuned_blocks
from botformer.attention.triton_op import MAX_HEAD_WIDTH, triton_attention
from tests.attention.brute_force import random_inputs

HERE = Path(__file__).parent


def run_behaviour(file="triton_behaviour.py", **environment):
    """These tests in a process of their own: Triton chooses its interpreter when it is imported."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file]
    return subprocess.run(
        command, cwd=HERE.parents[1], env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_the_kernels_behave_in_the_interpreter():
    pytest.importorskip("triton")
    done = run_behaviour(TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_on_a_cpu_it_is_refused_with_the_reason():
    with pytest.raises(RuntimeError, match=r"'triton' cannot run.*(CUDA devices, the input is on cpu|not installed)"):
        relative_attention_2d(*random_inputs(1, 1, 2, 2, 16, 16, torch.float32), backend="triton")


@pytest.mark.parametrize("pool", [False, True])
def test_it_runs_on_the_meta_device_without_triton(pool):
    inputs = [
        tensor.detach().to("meta").requires_grad_() for tensor in random_inputs(2, 3, 4, 6, 16, 24, torch.float32)
    ]
    out = triton_attention(*inputs, pool=pool)
    out.sum().backward()
    assert out.shape == ((2, 3, 2, 3, 24) if pool else (2, 3, 4, 6, 24))
    assert out.permute(0, 2, 3, 1, 4).is_contiguous()
    assert all(tensor.grad.shape == tensor.shape for tensor in inputs)


def test_the_operation_hands_the_pool_of_even_maps_to_the_kernels(monkeypatch):
    asked = []
    fake = dataclasses.replace(
        backends.BACKENDS["triton"],
        run=lambda *inputs, pool=False: asked.append(pool) or triton_attention(*inputs, pool=pool),
        unsupported_reason=lambda q, v: "",
    )
    monkeypatch.setitem(backends.BACKENDS, "triton", fake)
    for H, W in ((4, 6), (4, 5), (3, 6)):
        inputs = [tensor.detach().to("meta") for tensor in random_inputs(2, 3, H, W, 16, 24, torch.float32)]
        pooled = relative_attention_2d(*inputs, pool=True, backend="triton")
        assert pooled.shape == (2, 3, (H + 1) // 2, (W + 1) // 2, 24)
    assert asked == [True, False, False]


def test_importing_the_operator_does_not_import_triton():
    code = "import sys, botformer.attention.triton_op; sys.exit('botformer.attention.triton_kernels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("H", "W", "keys", "expected"),
    [(64, 64, 64, (1, 64)), (32, 32, 64, (2, 32)), (7, 7, 64, (8, 8)), (14, 14, 64, (4, 16)), (1, 100, 64, (1, 64))],
)
def test_a_key_tile_exceeds_the_map_as_little_as_possible(H, W, keys, expected):
    launch = pytest.importorskip("botformer.attention.triton_launch")
    assert launch.key_tile(H, W, keys) == expected


def test_there_is_a_row_of_block_sizes_for_every_head_width_that_is_accepted():
    for row in (8, 9):
        for size in (2, 4):
            assert max(width for one, bytes_, width in ROWS if (one, bytes_) == (row, size)) == MAX_HEAD_WIDTH


def test_pooled_tiles_are_whole_cells_and_a_quarter_of_one_is_wide_enough_for_a_product():
    assert POOLED_KEY_GRADIENT.keys() == ROWS.keys()
    for case, blocks in POOLED_KEY_GRADIENT.items():
        assert blocks.queries % 64 == 0, case
        assert all(other.queries % 4 == 0 for other in ROWS[case][:2]), case
    assert untuned_blocks("key_gradient", (9, 0), "float16", 50, pool=True) == POOLED_KEY_GRADIENT[9, 2, 64]
    assert untuned_blocks("forward", (9, 0), "float16", 50, pool=True) == ROWS[9, 2, 64][0]


def test_cards_with_little_shared_memory_take_the_rows_that_fit():
    for capability, row in {(8, 0): 8, (8, 6): 8, (8, 9): 8, (12, 0): 8, (9, 0): 9, (10, 0): 9, (10, 3): 9}.items():
        assert untuned_blocks("forward", capability, "bfloat16", 100) == ROWS[row, 2, 128][0]
        assert untuned_blocks("key_gradient", capability, "float32", 64) == ROWS[row, 4, 64][2]


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """A table with two maps of one card."""
    row = dict(kernel="forward", dtype="bfloat16", head=128, pool=False, warps=4, stages=2)
    rows = [row | dict(height=14, width=14, queries=16, keys=16), row | dict(height=64, width=64, queries=64, keys=32)]
    file = tmp_path / "triton_tuning.json"
    file.write_text(json.dumps({"8.9": {"card": "made up", "rows": rows}}))
    monkeypatch.setattr(triton_blocks, "TUNING_FILE", file)
    monkeypatch.setattr(triton_blocks, "_announced", set())
    triton_blocks._tuned_rows.cache_clear()
    yield
    triton_blocks._tuned_rows.cache_clear()


@pytest.mark.parametrize(
    ("size", "head", "expected"),
    [((14, 14), 128, (16, 16)), ((20, 20), 100, (16, 16)), ((64, 64), 128, (64, 32)), ((84, 134), 65, (64, 32))],
)
def test_measured_block_sizes_of_the_nearest_map_are_taken(size, head, expected, tuned):
    assert find_blocks("forward", (8, 9), "bfloat16", head, size) == Blocks(*expected, 4, 2)


def test_what_was_not_measured_runs_untuned_and_an_unknown_card_is_named_once(tuned, caplog):
    caplog.set_level("INFO")
    case = "bfloat16", 128, (64, 64)
    assert find_blocks("key_gradient", (8, 9), *case) == untuned_blocks("key_gradient", (8, 9), *case[:2])
    assert find_blocks("forward", (8, 9), *case, pool=True) == untuned_blocks("forward", (8, 9), *case[:2])
    assert not caplog.records
    for _ in range(2):
        assert find_blocks("forward", (9, 0), *case) == untuned_blocks("forward", (9, 0), *case[:2])
    assert [record.message.count("capability 9.0") for record in caplog.records] == [1]
