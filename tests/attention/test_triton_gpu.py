"""The fused kernels on a GPU: the same behaviour as in the interpreter, and maps of realistic size."""

import os
from functools import partial

import pytest
import torch

from botformer.attention.definition import attention_by_definition
from botformer.attention.triton_op import triton_attention
from tests.attention.error_budget import assert_within_budget, channels_last, corner_padding
from tests.attention.test_triton import run_behaviour

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SHAPES = [
    (2, 4, 14, 14, 128, 128),
    (1, 4, 20, 20, 128, 128),
    (1, 4, 25, 33, 128, 128),
    (2, 4, 32, 32, 128, 128),
    (1, 4, 64, 64, 128, 128),
    (1, 1, 84, 134, 64, 64),
    (1, 2, 64, 64, 32, 96),
]


def test_the_kernels_behave_on_the_device():
    done = run_behaviour(TRITON_INTERPRET="0")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_all_gradients_stay_within_the_error_budget(shape, dtype):
    torch.manual_seed(0)
    assert_within_budget(triton_attention, shape, dtype, device="cuda", layout=channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[3] % 2 == 0], ids=str)
def test_pooled_outputs_and_all_gradients_stay_within_the_error_budget(shape, dtype):
    torch.manual_seed(0)
    attention = partial(triton_attention, pool=True)
    assert_within_budget(attention, shape, dtype, device="cuda", layout=channels_last, pool=True)


def test_pooled_padded_keys_stay_within_the_error_budget():
    torch.manual_seed(1)
    padding = corner_padding(2, 20, 20, nothing_left=True).cuda()
    attention = partial(triton_attention, pool=True)
    assert_within_budget(attention, (2, 4, 20, 20, 128, 128), torch.bfloat16, padding, "cuda", pool=True)


def test_pooled_inference_never_has_the_result_that_is_averaged():
    def peak(pool):
        inputs = [torch.randn(8, 4, 64, 64, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        tables = [torch.randn(127, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        triton_attention(*inputs, *tables, pool=pool)  # the kernels are compiled, their memory is allocated
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        triton_attention(*inputs, *tables, pool=pool)
        return torch.cuda.max_memory_allocated() - before

    result = 8 * 4 * 64 * 64 * 128 * 2
    assert peak(False) - peak(True) >= 0.7 * result


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_padded_keys_stay_within_the_error_budget(shape):
    torch.manual_seed(1)
    padding = corner_padding(shape[0], *shape[2:4], nothing_left=shape[0] > 1).cuda()
    assert_within_budget(triton_attention, shape, torch.bfloat16, padding, "cuda")


def test_memory_grows_with_the_number_of_positions_and_not_with_its_square():
    def peak(attention, size):
        inputs = [torch.randn(1, 4, size, size, 128, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        tables = [torch.randn(2 * size - 1, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
        leaves = [tensor.requires_grad_() for tensor in (*inputs, *tables)]
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        attention(*leaves).sum().backward()
        return torch.cuda.max_memory_allocated() - before

    assert peak(triton_attention, 64) < 6 * peak(triton_attention, 32)
    assert peak(attention_by_definition, 64) > 10 * peak(triton_attention, 64)


def test_it_runs_under_inductor():
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("inductor makes kernels of its own")
    torch.manual_seed(2)
    compiled = torch.compile(triton_attention, fullgraph=True)
    assert_within_budget(compiled, (2, 4, 14, 14, 64, 64), torch.bfloat16, device="cuda", layout=channels_last)
