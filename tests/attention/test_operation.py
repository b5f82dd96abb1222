import pytest
import torch

from botformer.attention import relative_attention_2d, sdpa
from botformer.attention.backends import BACKENDS
from botformer.attention.definition import logits_by_definition
from botformer.errors import InputError
from tests.attention.brute_force import attention_by_double_loop, random_inputs

# test_triton.py and test_flash_attention_3.py test the others
ON_THE_CPU = [name for name in BACKENDS if name not in ("triton", "flash_attention_3")]

SHAPES = [  # B, N, H, W, D, Dv
    (2, 2, 3, 5, 4, 4),
    (1, 3, 5, 3, 8, 8),
    (1, 2, 1, 7, 4, 4),
    (1, 1, 7, 1, 4, 12),
    (1, 1, 1, 1, 4, 4),
    (2, 1, 4, 4, 8, 3),
    (1, 2, 3, 4, 4, 40),
]


def padding_for(shape, kind):
    B, _, H, W, *_ = shape
    if kind == "none":
        return None
    padding = torch.zeros(B, H, W, dtype=torch.bool)
    if kind == "bottom right":
        padding[:, H // 2 + 1 :] = True
        padding[0, :, W // 2 + 1 :] = True
    if kind == "everything":
        padding[-1] = True
    return padding


@pytest.mark.parametrize("backend", ON_THE_CPU)
@pytest.mark.parametrize("padding", ["none", "bottom right", "everything"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_backend_equals_the_double_loop(shape, padding, backend):
    torch.manual_seed(0)
    inputs, padding_mask = random_inputs(*shape), padding_for(shape, padding)
    out = relative_attention_2d(*inputs, padding_mask=padding_mask, backend=backend)
    torch.testing.assert_close(out, attention_by_double_loop(*inputs, padding_mask), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ON_THE_CPU)
@pytest.mark.parametrize("padding", ["none", "bottom right", "everything"])
def test_gradients_of_all_five_inputs_equal_finite_differences(backend, padding):
    torch.manual_seed(1)
    shape = (2, 2, 2, 3, 3, 2)
    padding_mask = padding_for(shape, padding)

    def operation(*inputs):
        return relative_attention_2d(*inputs, padding_mask=padding_mask, backend=backend)

    assert torch.autograd.gradcheck(operation, random_inputs(*shape))


@pytest.mark.parametrize("backend", ON_THE_CPU)
def test_an_empty_batch_gives_an_empty_result_with_gradients(backend):
    inputs = random_inputs(0, 2, 3, 4, 4, 6)
    out = relative_attention_2d(*inputs, backend=backend)
    assert out.shape == (0, 2, 3, 4, 6)
    out.sum().backward()
    assert all(not tensor.grad.any() for tensor in inputs)


@pytest.mark.parametrize("backend", ON_THE_CPU)
def test_an_image_with_every_key_padded_gives_zeros_and_finite_gradients(backend):
    inputs = random_inputs(2, 1, 3, 3, 4, 4, torch.float32)
    padding = torch.tensor([False, True])[:, None, None].expand(2, 3, 3)
    out = relative_attention_2d(*inputs, padding_mask=padding, backend=backend)
    out.square().sum().backward()
    assert not out[1].any()
    assert out[0].any()
    assert all(tensor.grad.isfinite().all() for tensor in inputs)
    assert not any(tensor.grad[1].any() for tensor in inputs[:3])


@pytest.mark.parametrize("backend", ON_THE_CPU)
@pytest.mark.parametrize("scale", [1, 100])
def test_the_values_of_padded_keys_change_nothing(backend, scale):
    torch.manual_seed(2)
    q, k, v, rel_height, rel_width = random_inputs(1, 2, 4, 4, 8, 8, torch.float32)
    padding = torch.zeros(1, 4, 4, dtype=torch.bool)
    padding[:, 2:] = True
    first = relative_attention_2d(q, k, v, rel_height, rel_width, padding_mask=padding, backend=backend)
    k, v = k.detach().clone(), v.detach().clone()
    k[:, :, 2:] = scale * torch.randn_like(k[:, :, 2:])
    v[:, :, 2:] = scale * torch.randn_like(v[:, :, 2:])
    second = relative_attention_2d(q, k, v, rel_height, rel_width, padding_mask=padding, backend=backend)
    assert torch.equal(first, second)


def test_relative_logits_depend_only_on_the_offset():
    torch.manual_seed(3)
    H, W, D = 4, 5, 6
    query = torch.randn(D, dtype=torch.float64)
    q = query.expand(1, 1, H, W, D)
    k = torch.zeros_like(q)
    tables = [torch.randn(2 * n - 1, D, dtype=torch.float64) for n in (H, W)]
    logits = logits_by_definition(q, k, *tables)[0, 0]
    seen = {}
    for y, x, u, w in ((y, x, u, w) for y in range(H) for x in range(W) for u in range(H) for w in range(W)):
        seen.setdefault((u - y, w - x), []).append(logits[y, x, u, w])
    assert len(seen) == (2 * H - 1) * (2 * W - 1)
    assert all(torch.stack(values).std(correction=0) < 1e-14 for values in seen.values())
    assert torch.stack([values[0] for values in seen.values()]).std() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 2, 7, 9, 16, 16), (1, 2, 12, 5, 32, 8)], ids=str)
def test_sdpa_stays_within_twice_the_error_of_the_definition(shape, dtype):
    torch.manual_seed(4)
    inputs = [tensor.detach().to(dtype) for tensor in random_inputs(*shape)]
    upstream = torch.randn(*shape[:4], shape[-1]).to(dtype)

    def run(backend, dtype):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        out = relative_attention_2d(*leaves, backend=backend)
        return [out, *torch.autograd.grad(out, leaves, upstream.to(dtype))]

    exact = run("definition", torch.float64)
    for reference, slow, fast in zip(exact, run("definition", dtype), run("sdpa", dtype), strict=True):
        # In the Euclidean norm: one wrong entry dominates it, the largest rounding error is luck.
        assert (fast - reference).norm() <= 2 * (slow - reference).norm() + torch.finfo(dtype).tiny


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("Dv", "H", "W"), [(16, 24, 20), (8, 24, 20), (128, 24, 20), (16, 1, 1100), (16, 1100, 1)])
def test_sdpa_never_holds_an_n_by_n_tensor(Dv, H, W, padded):
    """The largest tensor that any operator of the forward and backward pass returns stays far below N x N, or on an
    elongated map, whose N x N is small, below a table laid out by position, N x N x D."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        numel = 0
        seen: frozenset = frozenset()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            self.seen |= {str(function)}
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(tensor, torch.Tensor):
                    self.numel = max(self.numel, tensor.numel())
            return result

    inputs = random_inputs(1, 1, H, W, 16, Dv, torch.float32)
    padding = torch.zeros(1, H, W, dtype=torch.bool) if padded else None
    with Largest() as largest:
        relative_attention_2d(*inputs, padding_mask=padding, backend="sdpa").sum().backward()
    assert largest.numel <= H * W * max(16 + H + W + Dv + 8, 2 * max(H, W) if 1 in (H, W) else 0)
    assert any("flash_attention_for_cpu_backward" in name for name in largest.seen)
    with Largest() as largest:
        relative_attention_2d(*inputs, padding_mask=padding, backend="definition")
    assert largest.numel >= (H * W) ** 2  # the probe does detect such tensors


def test_a_table_that_is_too_large_to_lay_out_by_position_gives_the_same(monkeypatch):
    inputs = [x.requires_grad_() for x in random_inputs(2, 3, 5, 7, 8, 12)]

    def run():
        out = relative_attention_2d(*inputs, backend="sdpa")
        return [out, *torch.autograd.grad(out.square().sum(), inputs)]

    expected = run()
    monkeypatch.setattr(sdpa, "LARGEST_TABLE", 0)
    torch.testing.assert_close(run(), expected)


@pytest.mark.parametrize("again", [False, True])
def test_autocast_around_a_backward_pass_rounds_nothing(again):
    inputs = [x.requires_grad_() for x in random_inputs(1, 2, 18, 18, 16, 16, torch.float32)]
    out = relative_attention_2d(*inputs, backend="tiled")
    expected = torch.autograd.grad(out.square().sum(), inputs, retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.autograd.grad(out.square().sum(), inputs, create_graph=again)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_what_follows_may_change_the_result_in_place(heads, pool):
    """As the activation of a folded block does."""
    inputs = random_inputs(1, heads, 18, 18, 16, 16)
    gradients = []
    for change in (torch.relu, torch.relu_):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = change(relative_attention_2d(*leaves, pool=pool, backend="tiled"))
        gradients.append(torch.autograd.grad(out.square().sum(), leaves))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_views_of_nchw_maps_give_the_same():
    """Heads as the last stride, as they come out of a convolution that is not channels_last."""
    torch.manual_seed(6)
    inputs = random_inputs(2, 2, 4, 4, 8, 24)  # as wide as the keys with one-hot columns: nothing is padded
    views = [t.transpose(2, 4).contiguous().transpose(2, 4) if t.ndim == 5 else t for t in inputs]
    assert views[2].stride(-1) != 1
    torch.testing.assert_close(relative_attention_2d(*views), relative_attention_2d(*inputs))


def test_it_compiles_without_a_graph_break_with_dynamic_sizes():
    torch._dynamo.reset()
    graphs = []

    def record(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(relative_attention_2d, fullgraph=True, dynamic=True, backend=record)
    for H, W in [(5, 6), (7, 4), (9, 9)]:
        inputs = random_inputs(2, 2, H, W, 8, 8)
        torch.testing.assert_close(compiled(*inputs), relative_attention_2d(*inputs))
    assert len(graphs) == 1


def test_it_runs_on_the_meta_device():
    inputs = [tensor.to("meta") for tensor in random_inputs(2, 3, 4, 5, 8, 6)]
    padding = torch.zeros(2, 4, 5, dtype=torch.bool, device="meta")
    assert relative_attention_2d(*inputs, padding_mask=padding).shape == (2, 3, 4, 5, 6)


def test_autocast_does_not_change_the_precision_of_its_inputs():
    torch.manual_seed(5)
    inputs = random_inputs(1, 2, 4, 4, 8, 8, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = relative_attention_2d(*inputs)
    assert torch.equal(inside, relative_attention_2d(*inputs))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a | {"q": a["q"][0]}, "q must be"),
        (lambda a: a | {"k": a["k"][..., :-1]}, r"k has shape \(1, 2, 3, 4, 7\), expected \(1, 2, 3, 4, 8\)"),
        (
            lambda a: a | {"rel_height": a["rel_width"]},
            r"rel_height has shape \(7, 8\), expected \(5, 8\).*resize_table",
        ),
        (lambda a: a | {"v": a["v"].float()}, "v is torch.float32"),
        (lambda a: a | {"padding_mask": torch.zeros(1, 3, 4)}, "padding_mask must be bool"),
        (lambda a: a | {"backend": "tild"}, "did you mean tiled"),
    ],
)
def test_a_mismatch_is_named_with_what_was_expected(change, words):
    names = ("q", "k", "v", "rel_height", "rel_width")
    arguments = dict(zip(names, random_inputs(1, 2, 3, 4, 8, 8), strict=True))
    with pytest.raises(InputError, match=words):
        relative_attention_2d(**change(arguments))


def test_auto_logs_its_choice_once(caplog, monkeypatch):
    monkeypatch.setattr("botformer.attention.backends._announced", set())
    with caplog.at_level("INFO"):
        for _ in range(3):
            relative_attention_2d(*random_inputs(1, 1, 17, 17, 4, 4))
    assert [record.getMessage() for record in caplog.records] == ["attention on cpu: backend 'tiled'"]


@pytest.mark.parametrize("backend", ["tiled", "sdpa", "definition"])
@pytest.mark.parametrize(("H", "W"), [(4, 6), (5, 7), (1, 4), (3, 2)])
def test_pooling_averages_cells_of_2x2_and_partial_cells_at_an_odd_edge(H, W, backend):
    torch.manual_seed(0)
    inputs = random_inputs(2, 2, H, W, 4, 3)
    plain = relative_attention_2d(*inputs, backend="definition")
    pooled = relative_attention_2d(*inputs, pool=True, backend=backend)
    assert pooled.shape == (2, 2, (H + 1) // 2, (W + 1) // 2, 3)
    for y in range((H + 1) // 2):
        for x in range((W + 1) // 2):
            cell = plain[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((2, 3))
            torch.testing.assert_close(pooled[:, :, y, x], cell)
