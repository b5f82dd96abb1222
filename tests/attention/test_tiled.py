import dataclasses
import functools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from botformer.attention import backends, relative_attention_2d, tiled
from botformer.attention.tiled import tiled_attention, tiled_attention_backward
from tests.attention.brute_force import random_inputs
from tests.attention.error_budget import assert_within_budget, channels_first, channels_last, corner_padding

SHAPES = [(2, 2, 7, 9, 16, 16), (1, 2, 12, 5, 32, 8), (1, 1, 1, 30, 8, 24), (3, 2, 8, 8, 16, 16)]


@pytest.fixture(params=[2**20, 2**10], ids=["one tile", "many tiles"])
def tile_logits(request, monkeypatch):
    """A map in one tile, or cut into tiles of a few queries and a smaller last one."""
    monkeypatch.setattr(tiled, "TILE_LOGITS", request.param)
    monkeypatch.setattr(tiled, "MIN_QUERIES", 5)


@pytest.mark.parametrize("padding", ["none", "corner", "nothing left"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("tile_logits")
def test_outputs_and_all_gradients_stay_within_the_error_budget(shape, padding):
    torch.manual_seed(0)
    padding_mask = None if padding == "none" else corner_padding(shape[0], *shape[2:4], padding == "nothing left")
    assert_within_budget(tiled_attention, shape, torch.float32, padding_mask, layout=channels_last)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 8, 6, 16, 16), (2, 3, 8, 6, 16, 8)], ids=str)
@pytest.mark.usefixtures("tile_logits")
def test_maps_that_are_not_channels_last_give_the_same_however_many_heads_a_group_has(shape, pool):
    torch.manual_seed(0)

    def attention(*inputs):
        return tiled_attention(*inputs, pool)

    assert_within_budget(attention, shape, torch.float32, layout=channels_first, pool=pool)


@pytest.mark.usefixtures("tile_logits")
def test_gradients_of_all_five_inputs_equal_finite_differences():
    torch.manual_seed(1)
    assert torch.autograd.gradcheck(tiled_attention, random_inputs(2, 2, 3, 4, 3, 2))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.usefixtures("tile_logits")
def test_pooled_results_and_gradients_are_those_of_the_average_of_the_definition(padded):
    torch.manual_seed(3)
    inputs = random_inputs(2, 3, 6, 8, 5, 4)
    padding = corner_padding(2, 6, 8) if padded else None
    judge = relative_attention_2d(*inputs, padding_mask=padding, backend="definition")
    judge = judge.reshape(2, 3, 3, 2, 4, 2, 4).mean((3, 5))
    out = tiled_attention(*inputs, padding, True)
    torch.testing.assert_close(out, judge)
    upstream = torch.randn_like(judge)
    for mine, exact in zip(
        torch.autograd.grad(out, inputs, upstream), torch.autograd.grad(judge, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(mine, exact)


def test_groups_and_tiles_cover_every_query_of_every_head_once(monkeypatch):
    monkeypatch.setattr(tiled, "TILE_LOGITS", 1000)
    monkeypatch.setattr(tiled, "MIN_QUERIES", 4)
    for B, N, H, W in [(1, 1, 1, 1), (3, 2, 1, 5), (5, 3, 4, 2), (2, 3, 20, 15), (1, 5, 7, 143)]:
        q, covered = torch.zeros(B, N, H, W, 1), torch.zeros(B, N, H * W)
        tables = torch.zeros(2 * H - 1, 1), torch.zeros(2 * W - 1, 1)
        for where, group in tiled._groups(q, q, q, *tables, None, False):
            for rows in group.tiles():
                covered[(*where, rows)] += 1
        assert (covered == 1).all()


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that an operator returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().size() // tensor.element_size())
        return result


def test_memory_grows_with_the_number_of_positions_and_not_with_its_square(monkeypatch):
    monkeypatch.setattr(tiled, "TILE_LOGITS", 2**12)
    monkeypatch.setattr(tiled, "MIN_QUERIES", 8)

    def largest(size):
        inputs = [tensor.detach() for tensor in random_inputs(1, 2, size, size, 8, 8, torch.float32)]
        with Largest() as probe:
            # The operators are opaque to the probe from outside: call what they are made of.
            out = tiled_attention._init_fn(*inputs, None)
            tiled_attention_backward._init_fn(*inputs, None, False, torch.ones_like(out))
        return probe.numel

    assert largest(32) <= 2 * 32 * 32 * 2 * 32  # the products with all offsets: G P 2 sqrt(P)
    assert largest(32) < (32 * 32) ** 2 / 8


def test_it_does_not_call_pytorchs_attention_which_could_build_the_matrix(monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)
    inputs = random_inputs(1, 2, 6, 6, 8, 8, torch.float32)
    relative_attention_2d(*inputs, backend="tiled").sum().backward()


@pytest.mark.parametrize(("padded", "pool"), [(False, False), (True, True)])
def test_the_operators_pass_opcheck(padded, pool):
    inputs = random_inputs(2, 2, 2, 4, 8, 6, torch.float32)
    padding = corner_padding(2, 2, 4) if padded else None
    torch.library.opcheck(tiled_attention, (*inputs, padding, pool))
    d_out = torch.randn_like(tiled_attention(*inputs, padding, pool)).detach()
    arguments = [tensor.detach() for tensor in inputs]
    torch.library.opcheck(tiled_attention_backward, (*arguments, padding, pool, d_out))


def test_gradients_survive_compilation_and_checkpointing():
    torch.manual_seed(2)
    inputs = random_inputs(1, 2, 5, 6, 16, 16, torch.float32)
    expected = torch.autograd.grad(tiled_attention(*inputs).square().sum(), inputs)
    compiled = torch.compile(tiled_attention, fullgraph=True, backend="aot_eager")
    for variant in (compiled(*inputs), checkpoint(tiled_attention, *inputs, use_reentrant=False)):
        for gradient, judge in zip(torch.autograd.grad(variant.square().sum(), inputs), expected, strict=True):
            torch.testing.assert_close(gradient, judge)


def test_flops_are_those_of_the_definition_and_two_and_a_half_times_as_many_backwards():
    B, N, H, W, D, _ = shape = (2, 3, 4, 5, 8, 8)
    inputs = random_inputs(*shape)
    with FlopCounterMode(display=False) as fast:
        out = tiled_attention(*inputs)
    with FlopCounterMode(display=False) as plain:
        relative_attention_2d(*inputs, backend="definition")
    assert fast.get_total_flops() == plain.get_total_flops()
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    content, terms = 4 * B * N * (H * W) ** 2 * D, 2 * B * N * H * W * D * (H + W)
    assert backward.get_total_flops() == 2.5 * content + 2 * terms


def test_sixteen_bit_inputs_are_refused_with_the_reason_and_auto_takes_another_backend():
    inputs = [tensor.detach().bfloat16() for tensor in random_inputs(1, 1, 17, 17, 8, 8)]
    with pytest.raises(RuntimeError, match=r"'tiled' cannot run.*float32 and float64"):
        relative_attention_2d(*inputs, backend="tiled")
    assert torch.equal(relative_attention_2d(*inputs), relative_attention_2d(*inputs, backend="sdpa"))


def test_auto_takes_the_definition_for_small_maps_and_tiles_for_larger_ones(monkeypatch):
    taken = []
    for name in ("tiled", "definition"):
        backend = backends.BACKENDS[name]
        run = functools.partial(
            lambda *inputs, backend: taken.append(backend.name) or backend.run(*inputs), backend=backend
        )
        monkeypatch.setitem(backends.BACKENDS, name, dataclasses.replace(backend, run=run))
    for H, W in [(7, 7), (16, 16), (16, 17), (1, 300)]:
        relative_attention_2d(*random_inputs(1, 1, H, W, 4, 4, torch.float32))
    assert taken == ["definition", "definition", "tiled", "tiled"]


def test_an_exported_graph_has_only_pytorchs_own_operators():
    class Attention(torch.nn.Module):
        def forward(self, *inputs):
            return relative_attention_2d(*inputs)

    inputs = tuple(tensor.detach() for tensor in random_inputs(1, 2, 4, 5, 8, 8, torch.float32))
    program = torch.export.export(Attention(), inputs)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [name for name in names if "botformer" in name]
    torch.testing.assert_close(program.module()(*inputs), relative_attention_2d(*inputs, backend="definition"))
