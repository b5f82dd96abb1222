"""What the fused kernels must do, on CUDA or, where TRITON_INTERPRET=1 is set, in the interpreter on the CPU.

Not collected by itself: `test_triton.py` runs it in the interpreter, `test_triton_gpu.py` on a GPU.
"""

import os
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from botformer.attention import relative_attention_2d
from botformer.attention.definition import attention_by_definition, pooled_attention_by_definition
from botformer.attention.triton_op import relative_attention, relative_attention_backward, triton_attention
from tests.attention import triton_interpreter
from tests.attention.brute_force import attention_by_double_loop, random_inputs
from tests.attention.error_budget import assert_within_budget, channels_last, corner_padding

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    triton_interpreter.fix_bfloat16()
DEVICE = "cpu" if INTERPRETED else "cuda"
SHAPES = [  # B, N, H, W, D, Dv
    (2, 2, 7, 9, 16, 16),
    (1, 1, 14, 14, 32, 32),
    (1, 2, 1, 70, 16, 16),
    (1, 1, 70, 1, 16, 16),
    (1, 1, 5, 33, 24, 40),
    (1, 1, 3, 140, 16, 16),  # several blocks of columns for any block size
    (1, 1, 11, 12, 128, 64),
    (1, 1, 9, 16, 128, 128),
]
# In the interpreter float32 tiles are small and slow: a few shapes there, all of them on a device.
SINGLE = [SHAPES[0], SHAPES[4], SHAPES[7]] if INTERPRETED else SHAPES
POOLED = [  # even maps: one and several tiles of queries and of keys, blocks of columns, narrow maps, D != Dv
    ((2, 2, 4, 6, 16, 16), torch.bfloat16),
    ((2, 2, 4, 6, 16, 24), torch.float32),
    ((2, 1, 2, 10, 16, 16), torch.float16),
    ((1, 1, 14, 14, 32, 32), torch.bfloat16),
    ((1, 1, 2, 70, 16, 16), torch.bfloat16),
    ((1, 1, 18, 2, 24, 40), torch.bfloat16),
    ((1, 1, 10, 16, 128, 64), torch.bfloat16),
]
CASES = [(shape, torch.bfloat16) for shape in SHAPES] + [(shape, torch.float32) for shape in SINGLE]


def on_device(inputs, dtype=torch.float32):
    return [tensor.detach().to(DEVICE, dtype).requires_grad_() for tensor in inputs]


@pytest.mark.parametrize(("shape", "dtype"), [*CASES, (SHAPES[0], torch.float16)], ids=str)
def test_outputs_and_all_gradients_stay_within_the_error_budget(shape, dtype):
    torch.manual_seed(0)
    assert_within_budget(triton_attention, shape, dtype, device=DEVICE)


@pytest.mark.parametrize(("shape", "dtype"), POOLED, ids=str)
def test_pooled_outputs_and_all_gradients_stay_within_the_error_budget(shape, dtype):
    torch.manual_seed(0)
    assert_within_budget(partial(triton_attention, pool=True), shape, dtype, device=DEVICE, pool=True)


@pytest.mark.parametrize("nothing_left", [False, True])
def test_pooled_maps_of_a_channels_last_projection_with_padding_stay_within_the_error_budget(nothing_left):
    torch.manual_seed(1)
    padding = corner_padding(2, 6, 8, nothing_left).to(DEVICE)
    attention = partial(triton_attention, pool=True)
    assert_within_budget(attention, (2, 2, 6, 8, 16, 24), torch.bfloat16, padding, DEVICE, channels_last, pool=True)


@pytest.mark.parametrize("nothing_left", [False, True])
@pytest.mark.parametrize("shape", [(2, 2, 7, 9, 16, 16), (2, 1, 6, 40, 16, 16)], ids=str)
def test_padded_keys_stay_within_the_error_budget(shape, nothing_left):
    torch.manual_seed(1)
    padding = corner_padding(shape[0], *shape[2:4], nothing_left).to(DEVICE)
    assert_within_budget(triton_attention, shape, torch.bfloat16, padding, DEVICE)


def test_maps_of_a_channels_last_projection_are_read_without_a_copy():
    torch.manual_seed(2)
    assert_within_budget(triton_attention, (2, 2, 6, 10, 16, 24), torch.bfloat16, device=DEVICE, layout=channels_last)


def test_it_equals_the_double_loop():
    torch.manual_seed(3)
    inputs = random_inputs(1, 2, 3, 5, 16, 8)
    out = relative_attention_2d(*on_device(inputs), backend="triton")
    expected = attention_by_double_loop(*inputs).float().to(DEVICE)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_pooled_it_equals_the_averages_of_the_double_loop():
    torch.manual_seed(3)
    inputs = random_inputs(2, 2, 2, 6, 16, 8)
    padding = corner_padding(2, 2, 6)
    with torch.no_grad():  # what inference runs: nothing but the averages is stored
        out = relative_attention_2d(*on_device(inputs), padding_mask=padding.to(DEVICE), pool=True, backend="triton")
    every = attention_by_double_loop(*inputs, padding)
    expected = every.reshape(2, 2, 1, 2, 3, 2, 8).mean((3, 5)).float().to(DEVICE)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_pooled_odd_maps_are_averaged_afterwards():
    torch.manual_seed(3)
    inputs = on_device(random_inputs(1, 1, 3, 4, 16, 16))
    out = relative_attention_2d(*inputs, pool=True, backend="triton")
    every = triton_attention(*inputs)
    assert out.shape == (1, 1, 2, 2, 16)
    torch.testing.assert_close(out[0, 0, 1, 1], every[0, 0, 2, 2:].mean(0))


@pytest.mark.parametrize("pool", [False, True])
def test_an_image_with_every_key_padded_gives_zeros_and_zero_gradients(pool):
    inputs = on_device(random_inputs(2, 1, 2, 4, 16, 16))
    padding = torch.tensor([False, True], device=DEVICE)[:, None, None].expand(2, 2, 4)
    out = relative_attention_2d(*inputs, padding_mask=padding, pool=pool, backend="triton")
    out.square().sum().backward()
    assert out[0].any()
    assert not out[1].any()
    assert all(tensor.grad.isfinite().all() for tensor in inputs)
    assert not any(tensor.grad[1].any() for tensor in inputs[:3])


def test_the_values_of_padded_keys_change_nothing():
    torch.manual_seed(4)
    q, k, v, *tables = on_device(random_inputs(1, 1, 6, 6, 16, 16))
    padding = torch.zeros(1, 6, 6, dtype=torch.bool, device=DEVICE)
    padding[:, 4:] = True
    results = []
    for scale in (1, 100):
        other_k, other_v = k.detach().clone(), v.detach().clone()
        other_k[:, :, 4:] *= scale
        other_v[:, :, 4:] *= scale
        leaves = [q, other_k.requires_grad_(), other_v.requires_grad_(), *tables]
        out = triton_attention(*leaves, padding)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


@pytest.mark.parametrize("pool", [False, True])
def test_an_empty_batch_gives_an_empty_result_and_zero_gradients(pool):
    inputs = on_device(random_inputs(0, 2, 4, 6, 16, 16))
    out = triton_attention(*inputs, pool=pool)
    out.sum().backward()
    assert out.shape == ((0, 2, 2, 3, 16) if pool else (0, 2, 4, 6, 16))
    assert all(tensor.grad.shape == tensor.shape and not tensor.grad.any() for tensor in inputs)


@pytest.mark.parametrize(("pool", "width"), [(False, 20), (True, 6)])
def test_results_are_the_same_to_the_bit_from_run_to_run(pool, width):
    torch.manual_seed(5)
    inputs = on_device(random_inputs(2, 1, 4, width, 16, 16), torch.bfloat16)

    def run():
        out = triton_attention(*inputs, pool=pool)
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    assert all(torch.equal(first, second) for first, second in zip(run(), run(), strict=True))


def test_pooled_in_inference_the_unpooled_result_is_not_stored():
    inputs = on_device(random_inputs(1, 1, 2, 4, 16, 16))
    training = relative_attention(*inputs, None, True, True)
    with torch.no_grad():
        inference = relative_attention(*inputs, None, True, False)
    assert [tuple(results[1].shape) for results in (training, inference)] == [(1, 1, 2, 4, 16), (0,)]
    assert torch.equal(training[0], inference[0])


@pytest.mark.parametrize("pool", [False, True])
def test_it_compiles_as_one_graph_for_changing_sizes(pool):
    torch._dynamo.reset()
    graphs = []

    def record(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    def operation(*inputs):
        return relative_attention_2d(*inputs, pool=pool, backend="triton")

    compiled = torch.compile(operation, fullgraph=True, dynamic=True, backend=record)
    for H, W in [(4, 6), (2, 8)] if pool else [(5, 6), (7, 4)]:
        inputs = on_device(random_inputs(2, 1, H, W, 16, 16))
        torch.testing.assert_close(compiled(*inputs), operation(*inputs), rtol=0, atol=0)
    assert len(graphs) == 1


@pytest.mark.parametrize(("pool", "size"), [(False, (5, 6)), (True, (2, 2))])
def test_gradients_survive_compilation_and_checkpointing(pool, size):
    torch.manual_seed(6)
    inputs = on_device(random_inputs(1, 1, *size, 16, 16))
    attention = partial(triton_attention, pool=pool)
    expected = torch.autograd.grad(attention(*inputs).square().sum(), inputs)
    compiled = torch.compile(attention, fullgraph=True, backend="aot_eager")
    variants = [compiled(*inputs), checkpoint(attention, *inputs, use_reentrant=False)]
    if pool:  # its first run is without gradients and keeps less
        variants.append(checkpoint(attention, *inputs, use_reentrant=True))
    for variant in variants:
        variant.square().sum().backward()
        for tensor, exact in zip(inputs, expected, strict=True):
            assert torch.equal(tensor.grad, exact)
            tensor.grad = None


@pytest.mark.parametrize(("pool", "size"), [(False, (5, 6)), (True, (4, 2))])
def test_derivatives_of_derivatives_are_those_of_the_definition(pool, size):
    torch.manual_seed(7)
    inputs = on_device(random_inputs(1, 1, *size, 16, 16))
    padding = torch.zeros(1, *size, dtype=torch.bool, device=DEVICE)
    padding[:, :, -1] = True

    def penalty(attention):
        out = attention(*inputs)
        slopes = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(slope.square().sum() for slope in slopes), inputs)

    found = penalty(partial(triton_attention, padding_mask=padding, pool=pool))
    expected = penalty(partial(pooled_attention_by_definition, padding_mask=padding, pool=pool))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_autocast_does_not_change_the_precision_of_its_inputs():
    inputs = on_device(random_inputs(1, 1, 4, 4, 16, 16))
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        inside = relative_attention_2d(*inputs, backend="triton")
    assert torch.equal(inside, triton_attention(*inputs))


@pytest.mark.parametrize(("padded", "pool"), [(False, False), (True, False), (True, True)])
def test_the_operators_pass_opcheck(padded, pool):
    """Fake results (shape, dtype, strides), schema and autograd registration against real ones."""
    inputs = on_device(random_inputs(1, 2, 2, 4, 16, 24))
    plain = [tensor.detach() for tensor in inputs]
    padding = corner_padding(1, 2, 4).to(DEVICE) if padded else None
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(relative_attention, (*inputs, padding, pool, True), test_utils=checks)
    if pool:
        torch.library.opcheck(relative_attention, (*plain, padding, True, False), test_utils=checks)
    out, each, *softmax = relative_attention(*plain, padding, pool, True)
    saved = (each if pool else out, *softmax)
    torch.library.opcheck(relative_attention_backward, (*plain, padding, *saved, out, pool), test_utils=checks)
    assert out.permute(0, 2, 3, 1, 4).is_contiguous()


@pytest.mark.parametrize(("pool", "heads"), [(False, 3), (True, 1)])
def test_flops_are_those_of_the_products_in_the_definition(pool, heads):
    B, N, H, W, D, Dv = shape = (2, heads, 4, 6, 16, 32)
    inputs = on_device(random_inputs(*shape))
    with FlopCounterMode(display=False) as fused:
        out = triton_attention(*inputs, pool=pool)
    with FlopCounterMode(display=False) as plain:
        attention_by_definition(*inputs)
    # The definition multiplies with the H + W entries that a query can meet, the paper counts all of both tables.
    extra = 2 * B * N * H * W * D * (H + W - 2)
    assert fused.get_total_flops() == plain.get_total_flops() + extra
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    content, terms = 2 * B * N * (H * W) ** 2, 2 * B * N * H * W * D * (2 * H + 2 * W - 2)
    assert backward.get_total_flops() == content * (3 * D + 2 * Dv) + 3 * terms


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda x: x.double(), "float64"), (lambda x: x.repeat(1, 1, 1, 1, 9), "a head of 144 is wider")],
)
def test_unsupported_inputs_are_refused_with_the_reason(change, words):
    inputs = [change(tensor) if tensor.ndim == 5 else tensor for tensor in on_device(random_inputs(1, 1, 2, 2, 16, 16))]
    D = inputs[0].shape[-1]
    tables = [torch.zeros(3, D, dtype=inputs[0].dtype, device=DEVICE) for _ in range(2)]
    with pytest.raises(RuntimeError, match=words):
        relative_attention_2d(*inputs[:3], *tables, backend="triton")


def test_a_map_whose_position_terms_are_not_counted_in_32_bits_is_refused():
    W = 46341
    maps = [torch.zeros(1, device=DEVICE).expand(1, 1, 1, W, 16) for _ in range(3)]
    tables = [torch.zeros(1, device=DEVICE).expand(length, 16) for length in (1, 2 * W - 1)]
    with pytest.raises(RuntimeError, match="a 1x46341 map has more numbers, or position terms, than"):
        relative_attention_2d(*maps, *tables, backend="triton")
