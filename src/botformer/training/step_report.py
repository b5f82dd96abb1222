"""The losses of a step on their way to the journal, without making the device wait for them."""

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor


@dataclass(frozen=True)
class StepInfo:
    step: int
    """Steps done, this one included."""
    learning_rate: float
    images: int
    """Images of the step, over all processes."""
    files: list[str]
    """Images of this process's share."""


@dataclass(frozen=True)
class StepResult:
    info: StepInfo
    losses: dict[str, float]
    """Means over all processes."""
    own_losses: dict[str, float]
    """This process's."""
    stop: bool
    """Whether any process was asked to stop."""

    @property
    def loss(self) -> float:
        return sum(self.losses.values())

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss)


class StepReport:
    """A step whose kernels may still be running. `read` waits for them."""

    def __init__(self, accelerator: Accelerator, info: StepInfo, losses: dict[str, Tensor], stop: bool):
        self._facts = info
        self._names = list(losses)
        own = torch.stack([*losses.values(), torch.full((), float(stop), device=accelerator.device)])
        shared = accelerator.reduce(own, reduction="mean")
        assert isinstance(shared, Tensor)
        # The copy is queued right behind the step, and the event behind the copy: reading one step later does not
        # wait for the step after it.
        self._values = torch.stack([shared, own]).to("cpu", non_blocking=True)
        self._copied = None
        if own.is_cuda:
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> StepResult:
        if self._copied is not None:
            self._copied.synchronize()
        (*shared, stop), (*own, _) = self._values.tolist()
        return StepResult(
            info=self._facts,
            losses=dict(zip(self._names, shared, strict=True)),
            own_losses=dict(zip(self._names, own, strict=True)),
            stop=stop > 0,
        )
