"""What the forward pass for map rows must do, on a GPU of capability 9.0 or in the interpreter (TRITON_INTERPRET=1).

Not collected by itself: `test_triton_hopper.py` runs it.
"""

import json
import os

import pytest
import torch
from triton.runtime import _allocation

from botformer.attention import triton_blocks, triton_launch
from botformer.attention.definition import attention_by_definition
from botformer.attention.triton_op import relative_attention, triton_attention
from tests.attention import triton_interpreter
from tests.attention.brute_force import random_inputs
from tests.attention.error_budget import assert_within_budget, channels_last

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    triton_interpreter.fix_bfloat16()
DEVICE = "cpu" if INTERPRETED else "cuda"
SHAPES = [  # B, N, H, W, D, Dv; the last tile of queries is full, a quarter full, half full
    (2, 2, 4, 32, 64, 64),
    (1, 2, 5, 32, 128, 128),
    (2, 1, 3, 64, 64, 64),
]


# In the interpreter both are the same.
@pytest.fixture(params=[("specialized", 4), ("map_rows", 8)][: 1 if INTERPRETED else 2], ids=str)
def measured(request, tmp_path, monkeypatch):
    """A table in which the variant won on all maps that it accepts; the list of its launches."""
    variant, warps = request.param
    row = dict(kernel="forward", pool=False, queries=128, warps=warps, stages=2, variant=variant)
    rows = [
        row | dict(dtype=dtype, head=head, height=width, width=width, keys=width)
        for dtype in ("bfloat16", "float16")
        for head in (64, 128)
        for width in (32, 64)
    ]
    file = tmp_path / "triton_tuning.json"
    file.write_text(json.dumps({"9.0": {"card": "made up", "rows": rows}}))
    monkeypatch.setattr(triton_blocks, "TUNING_FILE", file)
    triton_blocks._tuned_rows.cache_clear()
    launched = []
    launch = triton_launch._map_rows_launch

    def recorded(*args):
        launched.append(launch(*args))
        return launched[-1]

    monkeypatch.setattr(triton_launch, "_map_rows_launch", recorded)
    yield launched
    triton_blocks._tuned_rows.cache_clear()


def contiguous(q, k, v):
    return q, k, v


def test_outputs_and_all_gradients_stay_within_the_error_budget(measured):
    torch.manual_seed(0)
    assert_within_budget(triton_attention, SHAPES[1], torch.bfloat16, device=DEVICE, layout=channels_last)
    assert len(measured) == 1


@pytest.mark.parametrize(
    ("shape", "layout", "dtype"),
    [
        (SHAPES[0], channels_last, torch.bfloat16),
        (SHAPES[0], contiguous, torch.bfloat16),
        (SHAPES[2], channels_last, torch.bfloat16),
        (SHAPES[2], channels_last, torch.float16),
    ],
    ids=str,
)
def test_outputs_stay_within_the_error_budget(shape, layout, dtype, measured):
    torch.manual_seed(1)
    inputs = [tensor.detach().to(DEVICE, dtype) for tensor in random_inputs(*shape)]
    inputs[:3] = layout(*inputs[:3])
    exact = attention_by_definition(*(tensor.double() for tensor in inputs))
    allowed = 2 * (attention_by_definition(*inputs) - exact).norm()
    error = (relative_attention(*inputs, None, False, True)[0] - exact).norm()
    assert error <= allowed
    assert len(measured) == 1


def test_the_saved_softmax_is_that_of_the_kernel_for_all_maps(measured):
    torch.manual_seed(2)
    inputs = [tensor.to(DEVICE, torch.bfloat16) for tensor in random_inputs(*SHAPES[2])]
    out, _, largest, normalizer = relative_attention(*inputs, None, False, True)
    assert len(measured) == 1
    expected = [torch.empty_like(tensor) for tensor in (out, largest, normalizer)]
    blocks = triton_blocks.untuned_blocks("forward", (9, 0), "bfloat16", 64)
    triton_launch.forward_launch(*inputs, None, (9, 0), *expected, blocks)()
    torch.testing.assert_close(largest, expected[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(normalizer, expected[2], rtol=1e-5, atol=1e-6)


def test_results_are_the_same_to_the_bit_from_run_to_run_and_nothing_global_changes(measured):
    before = _allocation._allocator.get()
    torch.manual_seed(3)
    inputs = [tensor.to(DEVICE, torch.bfloat16) for tensor in random_inputs(1, 1, 4, 32, 64, 64)]
    first, second = (relative_attention(*inputs, None, False, True) for _ in range(2))
    assert len(measured) == 2
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert _allocation._allocator.get() is before  # of the memory for descriptors
