"""What the loop asks of those it works with. Nobody has to import this: having the members is enough."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

Batch = Mapping[str, Any]
"""One process's part of the images of an optimiser step. Every value is a tensor or a list with one entry per image;
`files`, when there, names the images. In a step there are `seeds`, whole numbers: what is drawn for an image follows
from its own, so that it does not depend on the number of processes."""


class Evaluator(Protocol):
    """Collects predictions into metrics. One is made for each evaluation."""

    def update(self, predictions: Any, batch: Batch) -> None: ...

    def state(self) -> Any:
        """What this process saw: plain data and tensors, which can be sent to other processes."""
        ...

    def merge(self, states: list[Any]) -> None:
        """Take over the states of all processes (called on a fresh evaluator)."""
        ...

    def compute(self) -> dict[str, float]: ...


class Task(Protocol):
    """A model with its losses and metrics. It must be an `nn.Module` too, with `model` a child of it."""

    @property
    def model(self) -> nn.Module:
        """Its `state_dict` is what a checkpoint's `model.safetensors` holds."""
        ...

    headline: str
    """The metric, higher is better, that decides which checkpoint is best."""

    shown: Sequence[str]
    """The metrics that people are shown, where there are so many; all are written down."""

    @property
    def has_unused_parameters(self) -> bool:
        """Whether some parameters that need a gradient never get one: processes must know it to exchange the others."""
        ...

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses, each a mean over the images of the batch; their sum is minimised. Processes average theirs, weighted
        by their images."""
        ...

    def predict(self, batch: Batch) -> Any: ...

    def evaluator(self) -> Evaluator: ...

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, relative to the task, that do not decay although they have two dimensions or more."""
        ...

    def model_config(self) -> dict[str, Any]:
        """What somebody needs to build the model again, as JSON: row, options, class names."""
        ...


class TrainBatches(Protocol):
    """An endless source of batches that can start anywhere."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def data(self) -> dict[str, Any]:
        """Which images these are, as JSON: how many there are (`images`), and checksums of their names and targets. A
        run does not continue on others."""
        ...

    def starting_at(self, step: int) -> Iterator[Batch]:
        """The batches of step, step + 1, ...: the same ones, wherever the run was interrupted."""
        ...
