import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from botformer.errors import InputError
from botformer.training.distributed import open_accelerator
from botformer.training.train_step import TrainState, split
from tests.training.toy import ToyTask, toy_batch, toy_recipe, toy_task


def train_state_for(task: ToyTask, **settings: Any) -> TrainState:
    recipe = toy_recipe(**settings)
    return TrainState(task, recipe, open_accelerator(recipe.run))


def weights(task: ToyTask) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.model.state_dict().items()}


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_accumulated_parts_equal_one_batch_also_when_they_are_uneven(parts: int) -> None:
    whole, divided = toy_task().double(), toy_task().double()
    batch = toy_batch(0)
    batch["images"] = batch["images"].double()
    losses = train_state_for(whole).step(batch, 0.1)
    losses_of_parts = train_state_for(divided, run={"accumulation": parts}).step(batch, 0.1)
    for name, tensor in weights(whole).items():
        assert torch.allclose(tensor, weights(divided)[name], rtol=1e-12, atol=1e-14)
    assert {k: float(v) for k, v in losses_of_parts.items()} == pytest.approx({k: float(v) for k, v in losses.items()})


def test_more_parts_than_images_is_an_error() -> None:
    with pytest.raises(InputError, match=r"run\.accumulation"):
        list(split(toy_batch(0, size=2), 3))


def test_clipping_bounds_the_step() -> None:
    task = toy_task()
    before = weights(task)
    train_state = train_state_for(task, optimizer={"clip_norm": 0.01, "weight_decay": 0.0})
    train_state.step(toy_batch(0), 1.0)
    moved = torch.cat([(after - before[name]).flatten() for name, after in weights(task).items()]).norm()
    assert float(moved) == pytest.approx(1.9 * 0.01, rel=1e-3)  # Nesterov: g + 0.9 g at the first step


def test_moving_average_follows_its_definition() -> None:
    task = toy_task()
    train_state = train_state_for(task, optimizer={"ema": 0.75})
    expected = weights(task)
    for number in range(5):
        train_state.step(toy_batch(number), 0.1)
        expected = {name: 0.75 * expected[name] + 0.25 * tensor for name, tensor in weights(task).items()}
    assert train_state.averaged_task is not None
    for name, tensor in train_state.averaged_task.model.state_dict().items():
        assert torch.allclose(tensor, expected[name], atol=1e-6)
        assert not torch.allclose(tensor, weights(task)[name], atol=1e-4)


def test_frozen_weights_stay_and_kernels_are_channels_last() -> None:
    task = toy_task("convolutional")
    task.model[0].requires_grad_(False)  # pyright: ignore[reportIndexIssue]
    before = weights(task)
    train_state_for(task).step(toy_batch(0), 0.1)
    assert torch.equal(weights(task)["0.weight"], before["0.weight"])
    assert not torch.equal(weights(task)["3.weight"], before["3.weight"])
    assert task.model[3].weight.is_contiguous(memory_format=torch.channels_last)  # pyright: ignore[reportIndexIssue]


def test_bf16_computes_in_bf16_keeps_float32_weights_and_leaves_the_task_as_it_was() -> None:
    task = toy_task()
    seen: list[torch.dtype] = []
    task.model.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    train_state = train_state_for(task, run={"precision": "bf16"})
    losses = train_state.step(toy_batch(0), 0.1)
    assert seen == [torch.bfloat16]
    assert {loss.dtype for loss in losses.values()} == {p.dtype for p in task.parameters()} == {torch.float32}
    copy.deepcopy(task)(toy_batch(0))
    assert seen[-1] == torch.float32


def test_synced_batch_norm_on_one_process_is_ordinary_batch_norm() -> None:
    task = toy_task("convolutional")
    recipe = toy_recipe()
    object.__setattr__(recipe.model, "normalization", "sync")
    TrainState(task, recipe, open_accelerator(recipe.run))
    assert type(task.model[1]) is torch.nn.BatchNorm2d  # pyright: ignore[reportIndexIssue]
