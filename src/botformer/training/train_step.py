"""One optimiser step: what it changes (weights, optimiser, moving average) and what it reports (losses)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from accelerate.utils import send_to_device
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from botformer.errors import InputError
from botformer.recipes.schema import Recipe
from botformer.sync_batch_norm import is_synchronised, synchronise
from botformer.training.checkpoint import TensorSets, load_model_tensors, model_tensors
from botformer.training.distributed import Accelerator
from botformer.training.loaded_weights import RANDOM, LoadedWeights
from botformer.training.optimizer import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from botformer.training.task import Batch, Task


class TrainState:
    def __init__(self, task: Task, recipe: Recipe, accelerator: Accelerator, loaded: LoadedWeights = RANDOM) -> None:
        assert isinstance(task, nn.Module)
        self.task = task
        self.accelerator = accelerator
        self.accumulation = recipe.run.accumulation
        self.clip_norm = recipe.optimizer.clip_norm
        if accelerator.num_processes > 1:  # or else some processes would wait for one that has stopped
            _check_parts(recipe.run.batch_size // accelerator.num_processes, self.accumulation)
        _synchronise_batch_norm(task, recipe, accelerator)
        task.to(accelerator.device)
        if accelerator.device.type in ("cuda", "cpu"):
            task.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # touches 4-D weights only
        task.train()
        self.optimizer = make_optimizer(task, task.no_weight_decay(), recipe.optimizer, loaded.names)
        self._started = False
        self.average = ModelEmaV3(task, decay=recipe.optimizer.ema) if recipe.optimizer.ema else None
        self._distributed = accelerator.distribute(task, task.has_unused_parameters)
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
        """One optimiser step on this process's part of a batch. Returns its losses, scalars still on the device."""
        assert isinstance(self.task, nn.Module)
        set_learning_rate(self.optimizer, learning_rate)
        with nullcontext() if self._started else self._statistics_checked(batch):
            losses = self._backward(batch)
        self._started = True
        if self.clip_norm:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update(self.task)
        return losses

    @contextmanager
    def _statistics_checked(self, batch: Batch) -> Iterator[None]:
        """BatchNorm has no statistics of a single value per channel. Every step has parts of the same sizes, so the
        first one shows it, before any weight has changed."""
        assert isinstance(self.task, nn.Module)

        def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].numel() // max(inputs[0].shape[1], 1)
            together = self.accelerator.num_processes if is_synchronised(module) else 1
            if module.training and values * together == 1:
                raise self._one_value_per_channel(names[module], batch)

        names: dict[nn.Module, str] = {
            module: name for name, module in self.task.named_modules() if isinstance(module, _BatchNorm)
        }
        handles = [module.register_forward_pre_hook(check) for module in names]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _one_value_per_channel(self, layer: str, batch: Batch) -> InputError:
        images = batch.get("images")
        size = f", of {images.shape[-1]}x{images.shape[-2]} pixels," if isinstance(images, Tensor) else ""
        processes = self.accelerator.num_processes
        among = f" among {processes} processes" if processes > 1 else ""
        return InputError(
            f"BatchNorm ({layer}) would see one value per channel, of which there are no statistics: a batch of "
            f"{batch_length(batch) * processes} images{size}{among} in {self.accumulation} parts (run.accumulation) "
            "leaves one image per part, and its map here is 1x1. Take a larger run.batch_size, a smaller "
            "run.accumulation, or a larger images.size"
        )

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients of the whole batch, part by part; a part counts by its fraction of the images."""
        totals: dict[str, Tensor] = {}
        parts = list(split(batch, self.accumulation))
        fractions = self.accelerator.fractions([batch_length(part) for part in parts])
        for number, (part, fraction) in enumerate(zip(parts, fractions, strict=True), start=1):
            if number < len(parts):  # processes exchange gradients once, with the last part
                with self.accelerator.no_sync(self._distributed):
                    losses = self._backward_part(part, fraction)
            else:
                losses = self._backward_part(part, fraction)
            for name, loss in losses.items():
                totals[name] = totals.get(name, torch.zeros_like(loss)) + loss
        return totals

    def _backward_part(self, part: Batch, fraction: float | Tensor) -> dict[str, Tensor]:
        on_device: Any = send_to_device(part, self.accelerator.device, non_blocking=self.accelerator.non_blocking)
        with self.accelerator.autocast():
            losses: dict[str, Tensor] = self._distributed(on_device)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        (total * fraction).backward()
        return {name: loss.detach().float() * fraction for name, loss in losses.items()}

    @torch.no_grad()
    def weights_are_finite(self) -> bool:
        """Whether the task holds no infinity and no NaN."""
        assert isinstance(self.task, nn.Module)
        checks = [t.isfinite().all() for t in self.task.state_dict().values() if t.is_floating_point()]
        return bool(torch.stack(checks).all())

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


@dataclass(frozen=True)
class StepInfo:
    step: int
    """Steps done, this one included."""
    learning_rate: float
    images: int
    """Images of the step, over all processes."""
    waited_s: float
    """How long this process waited for its batch. A GPU may have been busy with the step before meanwhile."""
    files: list[str]
    """Images of this process's part of the batch."""


class Wishes(NamedTuple):
    """What a process asks of all of them, once the steps that have begun are done."""

    stop: bool = False
    """It was told to by a signal."""
    give_up: bool = False
    """It will get no more batches."""
    save: bool = False
    """It is time for a checkpoint."""

    def __or__(self, other: "Wishes") -> "Wishes":  # type: ignore[override]
        return Wishes(*(one or another for one, another in zip(self, other, strict=True)))


@dataclass(frozen=True)
class StepResult:
    info: StepInfo
    losses: dict[str, float]
    """Of the whole batch: means over all processes."""
    own_losses: dict[str, float]
    """This process's, of which those are the means."""
    wishes: Wishes
    """Of all processes together."""

    @property
    def loss(self) -> float:
        return sum(self.losses.values())

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss)


class StepReport:
    """The losses of a step on their way to the run log. Its kernels may still be running: `read` waits for them."""

    def __init__(self, accelerator: Accelerator, info: StepInfo, losses: dict[str, Tensor], wishes: Wishes):
        self._info = info
        self._names = list(losses)
        asked = torch.tensor(wishes, dtype=torch.float32, device=accelerator.device)
        own = torch.cat([torch.stack(list(losses.values())), asked])
        means = accelerator.mean(own)
        # The copy is queued right behind the step, and the event behind the copy: reading one step later does not
        # wait for the step after it.
        self._values = torch.stack([means, own]).to("cpu", non_blocking=accelerator.non_blocking)
        self._copied = None
        if accelerator.non_blocking:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> StepResult:
        if self._copied is not None:
            self._copied.synchronize()
        means, own = self._values.tolist()
        return StepResult(
            info=self._info,
            losses=dict(zip(self._names, means, strict=False)),
            own_losses=dict(zip(self._names, own, strict=False)),
            wishes=Wishes(*(value > 0 for value in means[len(self._names) :])),
        )


def batch_length(batch: Batch) -> int:
    """Images in a batch."""
    lengths = {name: len(value) for name, value in batch.items()}
    assert len(set(lengths.values())) == 1, f"the values of a batch have different lengths: {lengths}"
    return next(iter(lengths.values()))


def split(batch: Batch, parts: int) -> Iterator[Batch]:
    """The batch in `parts` consecutive parts whose lengths differ by one at most."""
    length = batch_length(batch)
    _check_parts(length, parts)
    bounds = [length * i // parts for i in range(parts + 1)]
    for start, end in pairwise(bounds):
        yield {name: value[start:end] for name, value in batch.items()}


def _check_parts(images: int, parts: int) -> None:
    if images < parts:
        raise InputError(
            f"a batch of {images} images on each process cannot be computed in {parts} parts; "
            "lower run.accumulation or raise run.batch_size"
        )


def _synchronise_batch_norm(task: nn.Module, recipe: Recipe, accelerator: Accelerator) -> None:
    wanted = recipe.model.normalization == "sync" or any(isinstance(m, nn.SyncBatchNorm) for m in task.modules())
    if not wanted or accelerator.num_processes == 1:
        return  # one process already sees the whole batch
    synchronise(task, accelerator.device)
