"""Everything that changes while training: weights, optimiser, moving average. One call is one optimiser step."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from botformer.errors import InputError
from botformer.recipes.schema import Recipe
from botformer.training.model_tensors import TensorSets, all_finite, load_model_tensors, model_tensors
from botformer.training.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from botformer.training.task import Batch, Task


class TrainState:
    def __init__(self, task: Task, recipe: Recipe, accelerator: Accelerator):
        assert isinstance(task, nn.Module)
        self.task = task
        self.accelerator = accelerator
        self.accumulation = recipe.run.accumulation
        self.clip_norm = recipe.optimizer.clip_norm
        _synchronise_batch_norm(task, recipe, accelerator)
        task.to(accelerator.device)
        if accelerator.device.type in ("cuda", "cpu"):
            task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # touches 4-D weights only
        task.train()
        self.optimizer = make_optimizer(task, task.no_weight_decay(), recipe.optimizer)
        self.average = ModelEmaV3(task, decay=recipe.optimizer.ema) if recipe.optimizer.ema else None
        self._prepared = accelerator.prepare_model(task)
        if self.average:
            self.average.set(task)  # several processes have just been given the weights of the first

    @property
    def averaged_task(self) -> Task | None:
        """The task with the moving average of the weights."""
        return self.average.module if self.average else None  # pyright: ignore[reportReturnType]

    @property
    def set_names(self) -> tuple[str, ...]:
        """Names of the tensor sets of a checkpoint."""
        return ("model", "ema", "optimizer") if self.average else ("model", "optimizer")

    def step(self, batch: Batch, learning_rate: float) -> dict[str, Tensor]:
        """One optimiser step on this process's share of a batch. Returns its losses, scalars still on the device."""
        assert isinstance(self.task, nn.Module)
        set_learning_rate(self.optimizer, learning_rate)
        losses = self._backward(batch)
        if self.clip_norm:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.task)
        return losses

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of the whole batch, part by part; a part counts by its share of the images."""
        totals: dict[str, Tensor] = {}
        parts = list(split(batch, self.accumulation))
        for number, part in enumerate(parts, start=1):
            share = batch_length(part) / batch_length(batch)
            if number < len(parts):  # processes exchange gradients once, with the last part
                with self.accelerator.no_sync(self._prepared):
                    losses = self._backward_part(part, share)
            else:
                losses = self._backward_part(part, share)
            for name, loss in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(loss)) + loss
        return totals

    def _backward_part(self, part: Batch, share: float) -> dict[str, Tensor]:
        on_device: Any = send_to_device(part, self.accelerator.device, non_blocking=True)
        losses: dict[str, Tensor] = self._prepared(on_device)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        self.accelerator.backward(total * share)
        return {name: loss.detach().float() * share for name, loss in losses.items()}

    def weights_are_finite(self) -> bool:
        assert isinstance(self.task, nn.Module)
        return all_finite(self.task)

    def tensors(self) -> TensorSets:
        sets = {"model": model_tensors(self.task.model), "optimizer": optimizer_tensors(self.optimizer)}
        return sets | ({"ema": model_tensors(self.averaged_task.model)} if self.averaged_task else {})

    def load(self, sets: TensorSets) -> None:
        """Raises `InputError` naming the set whose tensors are not this model's."""
        for name, tensors in sets.items():
            try:
                if name == "optimizer":
                    load_optimizer_tensors(self.optimizer, tensors)
                else:
                    holder = self.averaged_task if name == "ema" else self.task
                    assert holder is not None
                    load_model_tensors(holder.model, tensors)
            except InputError as error:
                raise InputError(f"{name}.safetensors does not fit: {error}") from error

    def close(self) -> None:
        """Give the task its own `forward` back: accelerate had put one with autocast in its place."""
        self.accelerator.unwrap_model(self._prepared, keep_fp32_wrapper=False)
        vars(self.task).pop("forward", None)


def batch_length(batch: Batch) -> int:
    """Images in a batch."""
    lengths = {name: len(value) for name, value in batch.items()}
    assert len(set(lengths.values())) == 1, f"the values of a batch have different lengths: {lengths}"
    return next(iter(lengths.values()))


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in `parts` consecutive parts whose lengths differ by one at most."""
    length = batch_length(batch)
    if length < parts:
        raise InputError(
            f"a batch of {length} images on each process cannot be computed in {parts} parts; "
            "lower run.accumulation or raise run.batch_size"
        )
    bounds = [length * i // parts for i in range(parts + 1)]
    for start, end in pairwise(bounds):
        yield {name: value[start:end] for name, value in batch.items()}


def _synchronise_batch_norm(task: nn.Module, recipe: Recipe, accelerator: Accelerator) -> None:
    wanted = recipe.model.normalization == "sync" or any(isinstance(m, nn.SyncBatchNorm) for m in task.modules())
    if not wanted or accelerator.num_processes == 1:
        return  # one process already sees the whole batch
    if accelerator.device.type != "cuda":
        raise InputError(
            f"normalization sync needs CUDA, these {accelerator.num_processes} processes run on "
            f"{accelerator.device.type}; use normalization batch"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(task)
