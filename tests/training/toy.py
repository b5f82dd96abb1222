"""A small task that can be learnt in a second, and its data: nothing in it knows about images or BoTNet."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.recipes.schema import Model, Optimizer, Recipe, Run, Schedule

BATCH_SIZE = 8


def linear_model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))


def convolutional_model() -> nn.Module:
    """Everything that could make a resumed run differ: statistics, random numbers, 3x3 kernels in two layouts."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(16 * 9, 3),
    )


class Accuracy:
    def __init__(self) -> None:
        self.counts = torch.zeros(2, dtype=torch.long)

    def update(self, predictions: Tensor, batch: dict[str, Any]) -> None:
        self.counts += torch.tensor([int((predictions.argmax(1) == batch["labels"]).sum()), len(batch["labels"])])

    def state(self) -> Tensor:
        return self.counts

    def merge(self, states: list[Tensor]) -> None:
        self.counts = torch.stack(states).sum(0)

    def compute(self) -> dict[str, float]:
        return {"accuracy": int(self.counts[0]) / int(self.counts[1])}


class ToyTask(nn.Module):
    headline = "accuracy"
    shown = ("accuracy",)
    has_unused_parameters = False

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        logits = self.model(batch["images"])
        return {"cross_entropy": F.cross_entropy(logits, batch["labels"]), "size": 1e-3 * logits.square().mean()}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        return self.model(batch["images"])

    def evaluator(self) -> Accuracy:
        return Accuracy()

    def no_weight_decay(self) -> set[str]:
        return set()

    def model_config(self) -> dict[str, Any]:
        return {"name": "toy", "classes": ["red", "green", "blue"]}


def toy_task(model: str = "linear", seed: int = 0) -> ToyTask:
    torch.manual_seed(seed)
    return ToyTask({"linear": linear_model, "convolutional": convolutional_model}[model]())


def toy_batch(number: int, size: int = BATCH_SIZE) -> dict[str, Any]:
    """Noise in which the channel of the label is a little brighter; the same for the same number."""
    generator = torch.Generator().manual_seed(number)
    labels = torch.randint(3, (size,), generator=generator)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    images += 0.35 * F.one_hot(labels, 3)[:, :, None, None]
    return {"images": images, "labels": labels, "files": [f"{number}/{i}.png" for i in range(size)]}


class ToyBatches:
    """`broken_at`: the step whose batch holds a NaN. Each of `processes` sees its share of every batch."""

    def __init__(self, steps_per_epoch: int = 4, broken_at: int | None = None, rank: int = 0, processes: int = 1):
        self.steps_per_epoch = steps_per_epoch
        self.broken_at = broken_at
        self.rank, self.processes = rank, processes
        digests = ("names_sha256", "targets_sha256", "annotations_sha256")
        self.data: dict[str, Any] = {"images": steps_per_epoch * BATCH_SIZE} | dict.fromkeys(digests, "")

    def starting_at(self, step: int) -> Iterator[dict[str, Any]]:
        while True:
            batch = toy_batch(step)
            if step == self.broken_at:
                batch["images"][-1, 0, 0, 0] = torch.nan
            torch.manual_seed(12345)  # what reading images in the same process may do
            yield {name: value[self.rank :: self.processes] for name, value in batch.items()}
            step += 1


def toy_evaluation(rank: int = 0, processes: int = 1) -> list[dict[str, Any]]:
    batches = [toy_batch(1000 + i, size) for i, size in enumerate((16, 16, 7))]
    return batches[rank::processes]


def toy_recipe(
    run: dict[str, Any] | None = None, optimizer: dict[str, Any] | None = None, schedule: dict[str, Any] | None = None
) -> Recipe:
    recipe = Recipe(
        model=Model(name="toy"),
        optimizer=Optimizer(learning_rate=0.05, weight_decay=1e-3),
        schedule=Schedule(epochs=3, warmup_epochs=0.5),
        run=Run(batch_size=BATCH_SIZE, precision="float32", device="cpu"),
    )
    return replace(
        recipe,
        run=replace(recipe.run, **run or {}),
        optimizer=replace(recipe.optimizer, **optimizer or {}),
        schedule=replace(recipe.schedule, **schedule or {}),
    )
