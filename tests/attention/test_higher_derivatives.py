"""Second derivatives, forward mode and `torch.func`, by every backend that runs here, against the definition."""

import pytest
import torch
import torch.autograd.forward_ad as forward_mode
from torch import nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

import botformer
from botformer.attention import average_cells, dot_attention, relative_attention_2d
from botformer.attention.definition import attention_by_definition
from botformer.backbone.mhsa import MHSA2d
from tests.attention.brute_force import random_inputs

SIZES = [(1, 1), (3, 5), (16, 16), (16, 17), (17, 17), (18, 20)]  # on both sides of where the tiles take over
BACKENDS = ["auto", "tiled", "sdpa", "definition"]


def inputs_of(size):
    torch.manual_seed(0)
    return [tensor.detach() for tensor in random_inputs(2, 2, *size, 4, 3)]


def loss_of(backend, pool=False, padding=None):
    return lambda *inputs: (
        relative_attention_2d(*inputs, padding_mask=padding, pool=pool, backend=backend).square().sum()
    )


def loss_by_definition(pool=False, padding=None):
    def loss(*inputs):
        out = attention_by_definition(*inputs, padding)
        return (average_cells(out) if pool else out).square().sum()

    return loss


def second_derivatives(loss, inputs, direction):
    """The gradient of |gradient|^2-like penalties: d/d inputs of <gradient, direction>."""
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    gradients = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
    return torch.autograd.grad(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)), leaves)


@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
def test_derivatives_of_derivatives_are_those_of_the_definition(size, backend, pool):
    inputs = inputs_of(size)
    padding = torch.zeros(2, *size, dtype=torch.bool)
    padding[0, :, size[1] // 2 + 1 :] = True
    direction = [torch.randn_like(tensor) for tensor in inputs]
    found = second_derivatives(loss_of(backend, pool, padding), inputs, direction)
    expected = second_derivatives(loss_by_definition(pool, padding), inputs, direction)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_one_tensor_in_two_places_counts_twice_and_a_constant_not_at_all():
    q, _, v, *tables = inputs_of((17, 17))
    for backend in ("tiled", "sdpa"):
        results = []
        for attend in (lambda *x: relative_attention_2d(*x, backend=backend), attention_by_definition):  # noqa: B023
            x = q.clone().requires_grad_()
            (first,) = torch.autograd.grad(attend(x, x, v, *tables).square().sum(), x, create_graph=True)
            results.append(torch.autograd.grad(first.square().sum(), x))
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
@pytest.mark.parametrize("size", SIZES)
def test_transforms_of_torch_func_are_those_of_the_definition(size, backend):
    inputs = inputs_of(size)
    tangents = tuple(torch.randn_like(tensor) for tensor in inputs)
    loss, exact = loss_of(backend), loss_by_definition()
    per_sample = [0, 0, 0, None, None]
    samples = [tensor[:, None] for tensor in inputs[:3]] + inputs[3:]
    for transform in (
        lambda f: grad(f, argnums=(0, 3))(*inputs),
        lambda f: jvp(f, tuple(inputs), tangents),
        lambda f: jvp(grad(f), tuple(inputs), tangents),  # a product with the Hessian, forward over reverse
        lambda f: grad(lambda *x: (grad(f)(*x) * tangents[0]).sum(), argnums=4)(*inputs),
        lambda f: vmap(grad(f), in_dims=tuple(per_sample))(*samples),
    ):
        torch.testing.assert_close(transform(loss), transform(exact), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["auto", "sdpa"])
def test_hessian_and_jacobian_above_the_size_of_the_tiles(backend):
    q, k, v, height, width = (tensor[:1, :1] if tensor.ndim == 5 else tensor for tensor in inputs_of((17, 16)))
    for transform in (
        lambda f: hessian(lambda table: f(q, k, v, height, table).square().sum())(width),
        lambda f: jacrev(lambda table: f(q, k, v, height, table)[..., 0, :2, :])(width),
    ):
        found = transform(lambda *x: relative_attention_2d(*x, backend=backend))
        torch.testing.assert_close(found, transform(attention_by_definition), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batched_gradients_are_those_of_the_definition(backend):
    inputs = inputs_of((17, 17))

    def batched(attend):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        out = attend(*leaves)
        torch.manual_seed(1)
        return torch.autograd.grad(out, leaves, torch.randn(3, *out.shape, dtype=out.dtype), is_grads_batched=True)

    found = batched(lambda *x: relative_attention_2d(*x, backend=backend))
    torch.testing.assert_close(found, batched(attention_by_definition), rtol=1e-9, atol=1e-9)


def test_forward_mode_does_not_lose_a_tangent():
    inputs = inputs_of((17, 17))
    tangent_of_q = torch.randn_like(inputs[0])
    for place in range(5):
        tangent = torch.randn_like(inputs[place])
        tangents = []
        for loss in (loss_of("auto"), loss_by_definition()):
            with forward_mode.dual_level():
                dual = [*inputs[:place], forward_mode.make_dual(inputs[place], tangent), *inputs[place + 1 :]]
                tangents.append(forward_mode.unpack_dual(loss(*dual)).tangent)
        torch.testing.assert_close(*tangents, rtol=1e-9, atol=1e-9)
    with forward_mode.dual_level(), pytest.raises(RuntimeError, match="'tiled' does not run .*; use backend='auto'"):
        loss_of("tiled")(forward_mode.make_dual(inputs[0], tangent_of_q), *inputs[1:])
    with pytest.raises(RuntimeError, match="'tiled' does not run inside a torch.func transform .*use backend='auto'"):
        grad(loss_of("tiled"))(*inputs)


def test_content_alone_has_them_too():
    q, k, v, *_ = inputs_of((17, 17))

    def plain(q, k, v):
        return ((q.flatten(2, 3) @ k.flatten(2, 3).mT).softmax(-1) @ v.flatten(2, 3)).square().sum()

    def fused(q, k, v):
        return dot_attention([q], [k], v).square().sum()

    direction = [torch.randn_like(tensor) for tensor in (q, k, v)]
    found = second_derivatives(fused, (q, k, v), direction)
    torch.testing.assert_close(found, second_derivatives(plain, (q, k, v), direction), rtol=1e-9, atol=1e-9)
    tangents = tuple(direction)
    torch.testing.assert_close(jvp(fused, (q, k, v), tangents), jvp(plain, (q, k, v), tangents), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("position", ["relative", "absolute", "none", "position_only", "blog"])
def test_a_gradient_penalty_on_every_kind_of_layer_is_that_of_finite_differences(position):
    torch.manual_seed(0)
    layer = MHSA2d(4, 2, (17, 17), position).double()
    nn.init.normal_(layer.qkv.weight)
    x, step = torch.randn(2, 1, 4, 17, 18, dtype=torch.float64)

    def gradient(x):
        x = x.requires_grad_()
        return torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)[0]

    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad((gradient(leaf) * step).sum(), leaf)
    size = 1e-5
    expected = (gradient(x + size * step) - gradient(x - size * step)).detach() / (2 * size)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(128, 128), (136, 136), (136, 144)])
def test_a_whole_network_gives_gradients_per_sample_and_hessian_products(size):
    torch.manual_seed(0)
    model = botformer.create_model("botnet_nano", 2, 128, zero_gamma=False).double().eval()
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    images = torch.randn(2, 3, *size, dtype=torch.float64)

    def loss(parameters, image):
        return functional_call(model, parameters, (image[None],)).square().sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0))(parameters, images)
    for sample, image in enumerate(images):
        model.zero_grad()
        model(image[None]).square().sum().backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(per_sample[name][sample], parameter.grad, rtol=1e-8, atol=1e-10)
    tangents = {name: torch.randn_like(parameter) for name, parameter in parameters.items()}
    _, forward = jvp(grad(lambda p: loss(p, images[0])), (parameters,), (tangents,))
    first = torch.autograd.grad(model(images[:1]).square().sum(), list(model.parameters()), create_graph=True)
    product = sum((g * tangents[name]).sum() for g, name in zip(first, parameters, strict=True))
    for found, expected in zip(torch.autograd.grad(product, list(model.parameters())), forward.values(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)
