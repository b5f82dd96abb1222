"""The forward pass for map rows: in Triton's interpreter, and its compiled code for capability 9.0 without a GPU."""

import json
import math
import re

import pytest
import torch

from botformer.attention import triton_blocks
from botformer.attention.channels_last import empty_channels_last
from botformer.attention.triton_blocks import Blocks, find_blocks
from tests.attention.test_triton import run_behaviour

hopper = pytest.importorskip("botformer.attention.triton_hopper")

from botformer.attention.triton_kernels import forward_kernel  # noqa: E402
from botformer.attention.triton_launch import forward_launch  # noqa: E402
from tests.attention.test_triton_compilation import KIBIBYTE, compile_for, stack_bytes  # noqa: E402

SPECIALIZED = Blocks(128, 64, 4, 3, "specialized")
MAP_ROWS = Blocks(128, 64, 8, 3, "map_rows")
IS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == 9


def test_it_behaves_in_the_interpreter():
    done = run_behaviour("triton_hopper_behaviour.py", TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not IS_HOPPER, reason="needs a device of capability 9.0")
def test_it_behaves_on_the_device():
    done = run_behaviour("triton_hopper_behaviour.py", TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def maps(B, N, H, W, D, Dv, dtype=torch.bfloat16):
    """q, k and v as views of one channels_last projection, without memory."""
    whole = torch.empty(B, H, W, 3, N, max(D, Dv), dtype=dtype, device="meta").permute(3, 0, 4, 1, 2, 5)
    return whole[0, ..., :D], whole[1, ..., :D], whole[2, ..., :Dv]


def launch(shape, blocks=None, padded=False):
    q, k, v = maps(*shape)
    B, _, H, W, D, _ = shape
    largest, normalizer = q.new_empty(2, *q.shape[:2], H * W, dtype=torch.float32)
    tables = q.new_empty(2 * H - 1, D), q.new_empty(2 * W - 1, D)
    padding = q.new_empty(B, H, W, dtype=torch.bool) if padded else None
    return forward_launch(q, k, v, *tables, padding, (9, 0), empty_channels_last(v), largest, normalizer, blocks)


@pytest.mark.parametrize("blocks", [SPECIALIZED, MAP_ROWS], ids=str)
def test_no_register_spills_and_the_copies_fit_their_buffers(blocks, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    last = launch((2, 4, 64, 64, 128, 128), blocks)
    for step in (last.before, last):
        compiled = compile_for(step, 90)
        assert compiled.metadata.shared <= 227 * KIBIBYTE
        assert stack_bytes(compiled, tmp_path) == 0
    assert "wgmma.mma_async" in compiled.asm["ptx"]
    assert "cp.async.bulk.tensor" in compiled.asm["ptx"]
    assert ("setmaxnreg" in compiled.asm["ptx"]) == (blocks.variant == "specialized")
    # Where a pass of the compiler halves the queries of a program, it has to halve the boxes of their copies too.
    box_and_buffer = r"tma_copy_global_to_local.*tensordesc<(?:tensor<)?([\dx]+)xbf16.*-> !ttg.memdesc<([\dx]+)xbf16"
    copies = re.findall(box_and_buffer, compiled.asm["ttgir"])
    assert len(copies) >= 4
    assert all(box == buffer for box, buffer in copies)


@pytest.mark.parametrize(
    ("shape", "dtype", "blocks"),
    [
        ((1, 2, 64, 64, 128, 128), torch.bfloat16, SPECIALIZED),
        ((2, 4, 3, 64, 64, 64), torch.float16, MAP_ROWS),
        ((2, 4, 32, 32, 128, 128), torch.bfloat16, Blocks(128, 32, 4, 3, "specialized")),
    ],
    ids=str,
)
def test_maps_whose_rows_are_key_tiles_are_accepted(shape, dtype, blocks):
    q, k, v = maps(*shape, dtype)
    assert hopper.supports(blocks, q, k, v, None, (9, 0))
    assert not hopper.supports(blocks, q, k, v, torch.zeros(q.shape[0], *shape[2:4], dtype=torch.bool), (9, 0))
    assert not hopper.supports(blocks, q, k, v, None, (8, 0))
    assert not hopper.supports(blocks, q, k, v, None, (10, 0))
    every_second = torch.stack([k, k], 3).flatten(2, 3)[:, :, ::2]
    assert not hopper.supports(blocks, q, every_second, v, None, (9, 0))


@pytest.mark.parametrize(
    ("shape", "dtype", "blocks"),
    [
        ((1, 1, 64, 60, 128, 128), torch.bfloat16, SPECIALIZED),
        ((1, 1, 64, 32, 128, 128), torch.bfloat16, SPECIALIZED),  # a row and a tile differ
        ((1, 1, 1, 64, 128, 128), torch.bfloat16, SPECIALIZED),  # less than one tile of queries
        ((1, 1, 64, 64, 96, 96), torch.bfloat16, SPECIALIZED),
        ((1, 1, 64, 64, 128, 64), torch.bfloat16, SPECIALIZED),
        ((1, 1, 64, 64, 128, 128), torch.float32, SPECIALIZED),
        ((1, 1, 64, 64, 128, 128), torch.bfloat16, Blocks(64, 64, 4, 3, "specialized")),
        ((1, 1, 64, 64, 128, 128), torch.bfloat16, Blocks(128, 64, 8, 3, "specialized")),
        ((1, 1, 64, 64, 128, 128), torch.bfloat16, Blocks(128, 64, 8, 3)),
    ],
    ids=str,
)
def test_other_calls_and_blocks_are_not(shape, dtype, blocks):
    assert not hopper.supports(blocks, *maps(*shape, dtype), None, (9, 0))


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """A table in which both kernels were measured on one map, and the kernel for all maps on another."""
    row = dict(kernel="forward", dtype="bfloat16", head=128, pool=False, warps=4, stages=2, queries=64)
    rows = [
        row | dict(height=64, width=64, keys=32),
        row | dict(height=64, width=64, keys=64, queries=128, variant="specialized"),
        row | dict(height=32, width=32, keys=16, variant="tiles"),
    ]
    file = tmp_path / "triton_tuning.json"
    file.write_text(json.dumps({"9.0": {"card": "made up", "rows": rows}}))
    monkeypatch.setattr(triton_blocks, "TUNING_FILE", file)
    triton_blocks._tuned_rows.cache_clear()
    yield
    triton_blocks._tuned_rows.cache_clear()


@pytest.mark.parametrize("size", [(64, 64), (80, 64), (32, 32)])
def test_a_measured_variant_is_taken_only_where_the_call_accepts_it(size, tuned):
    case = "forward", (9, 0), "bfloat16", 128, size
    near = math.prod(size) > 32 * 32
    assert find_blocks(*case) == Blocks(64, 32 if near else 16, 4, 2)
    everything = find_blocks(*case, accepts=lambda blocks: True)
    assert everything == (Blocks(128, 64, 4, 2, "specialized") if near else Blocks(64, 16, 4, 2))


def test_a_call_that_the_variant_does_not_accept_runs_by_the_kernel_for_all_maps(tuned):
    assert launch((1, 1, 64, 64, 128, 128)).function is hopper.map_rows_kernel
    for other in (launch((1, 1, 64, 64, 128, 128), padded=True), launch((1, 1, 63, 63, 128, 128))):
        assert other.function is forward_kernel
        assert other.blocks == Blocks(64, 32, 4, 2)
