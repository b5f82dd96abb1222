import pytest
import torch
from torch import Tensor, nn

from botformer.errors import InputError
from botformer.recipes.schema import Optimizer
from botformer.training.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 3, 3, 3))
        self.table = nn.Parameter(torch.ones(5, 2))
        self.bias = nn.Parameter(torch.ones(4))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def step(optimizer: torch.optim.Optimizer, gradient: float = 0.0) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.full_like(p, gradient)
    optimizer.step()


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_only_kernels_shrink_without_a_gradient(name: str) -> None:
    model = Small()
    settings = Optimizer(name=name, learning_rate=0.1, weight_decay=0.5)  # pyright: ignore[reportArgumentType]
    step(make_optimizer(model, {"table"}, settings))
    shrunk = {"kernel": 0.95 if name == "adamw" else 1 - 0.1 * 0.5 * 1.9}  # Nesterov: g + 0.9 g at the first step
    for parameter, tensor in model.named_parameters():
        assert torch.allclose(tensor, torch.tensor(shrunk.get(parameter, 1.0))), parameter


def test_sgd_is_nesterov_with_momentum() -> None:
    ours, peer = Small(), Small()
    optimizer = make_optimizer(ours, set(), Optimizer(learning_rate=0.1, weight_decay=0.0))
    reference = torch.optim.SGD([peer.kernel], lr=0.1, momentum=0.9, nesterov=True)
    for gradient in (1.0, -2.0, 0.5):
        step(optimizer, gradient)
        step(reference, gradient)
    assert torch.equal(ours.kernel, peer.kernel)


def test_learning_rate_reaches_every_group() -> None:
    optimizer = make_optimizer(Small(), {"table"}, Optimizer())
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_nothing_left_to_train_is_an_error() -> None:
    with pytest.raises(InputError, match="frozen_stages"):
        make_optimizer(Small().requires_grad_(False), set(), Optimizer())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_restored_state_continues_to_the_bit_in_the_layout_of_the_parameters(name: str) -> None:
    settings = Optimizer(name=name, learning_rate=0.1)  # pyright: ignore[reportArgumentType]
    model = Small().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = make_optimizer(model, set(), settings)
    step(optimizer, 1.0)
    copy = Small().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    copy.load_state_dict(model.state_dict())
    restored = make_optimizer(copy, set(), settings)
    load_optimizer_tensors(restored, {k: t.contiguous().clone() for k, t in optimizer_tensors(optimizer).items()})
    buffer = next(t for t in optimizer_tensors(restored).values() if t.shape == (4, 3, 3, 3))
    assert buffer.is_contiguous(memory_format=torch.channels_last)
    step(optimizer, -0.3)
    step(restored, -0.3)
    for ours, peer in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(ours, peer)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"0.momentum_buffer": torch.zeros(7)},
        {"99.momentum_buffer": torch.zeros(4)},
        {f"{'9' * 5000}.momentum_buffer": torch.zeros(4)},
        {"conv1.weight": torch.zeros(4, 3, 3, 3)},
    ],
)
def test_state_of_another_model_is_refused(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(InputError):
        load_optimizer_tensors(make_optimizer(Small(), set(), Optimizer()), tensors)


def test_loaded_parameters_have_groups_of_their_own_with_a_part_of_the_rate() -> None:
    model = Small()
    settings = Optimizer(learning_rate=0.4, weight_decay=0.5, loaded_rate=0.25)
    optimizer = make_optimizer(model, {"table"}, settings, ["kernel", "bias", "frozen", "elsewhere"])
    set_learning_rate(optimizer, 0.2)
    groups = [([id(p) for p in g["params"]], g["weight_decay"], g["lr"]) for g in optimizer.param_groups]
    assert groups == [
        ([id(model.table)], 0.0, 0.2),
        ([id(model.kernel)], 0.5, 0.05),
        ([id(model.bias)], 0.0, 0.05),
    ]


@pytest.mark.parametrize(("rate", "loaded"), [(1.0, ["kernel", "bias"]), (0.1, [])])
def test_without_a_rate_or_without_weights_the_optimiser_is_what_it_was(rate: float, loaded: list[str]) -> None:
    model = Small()
    optimizer = make_optimizer(model, {"table"}, Optimizer(learning_rate=0.4, loaded_rate=rate), loaded)
    set_learning_rate(optimizer, 0.3)
    assert [(g["params"], g["lr"]) for g in optimizer.param_groups] == [
        ([model.kernel], 0.3),
        ([model.table, model.bias], 0.3),
    ]
    step(optimizer, 1.0)
    assert list(optimizer_tensors(optimizer)) == ["0.momentum_buffer", "1.momentum_buffer", "2.momentum_buffer"]
