"""A step that does not fit into memory: which options help, and by how much."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from botformer.errors import InputError
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Recipe

_ON_CPU = "DefaultCPUAllocator"
"""PyTorch raises a plain RuntimeError there."""


@contextmanager
def out_of_memory_explained(recipe: Recipe, processes: int) -> Iterator[None]:
    """Raises `InputError` with advice where something inside finds no memory; `recipe` has its precision resolved."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and _ON_CPU not in str(error):
            raise
        said = str(error).strip().splitlines()
        raise InputError(
            f"out of memory in a training step with {_at_once(recipe, processes)} images at a time in each process "
            f"({said[0] if said else 'MemoryError'}). What is kept of images for the backward pass takes less with:\n"
            + "\n".join(f"  {line}" for line in memory_advice(recipe, processes))
        ) from error


def memory_advice(recipe: Recipe, processes: int) -> list[str]:
    """Options that this run does not use yet, those first that change least of the result; each with what remains of
    the activations' memory. Weights, gradients and the optimiser's state keep theirs."""
    model, run = recipe.model, recipe.run
    advice = []
    if not model.gradient_checkpointing:
        advice.append(
            "model.gradient_checkpointing true: a third of the backbone's (botnet50), and a third more time; the same "
            "results"
        )
    at_once = _at_once(recipe, processes)
    if at_once > 1:
        half = -(-at_once // 2)
        advice.append(
            f"run.accumulation {run.accumulation * 2}, now {run.accumulation}: {half / at_once:.0%}, {half} images at "
            "a time; the batch stays, but BatchNorm sees fewer images at a time"
        )
        advice.append(f"{2 * processes} processes (torchrun), now {processes}: {half / at_once:.0%} on each device")
    if run.precision == "float32":
        advice.append("run.precision bf16, now float32: half, on devices that compute in it")
    if isinstance(recipe, ClassificationRecipe | DetectionRecipe):
        side = recipe.images.size
        smaller = max(32, round(side * 0.7 / 32) * 32)
        if smaller < side:
            advice.append(
                f"images.size {smaller}, now {side}: {(smaller / side) ** 2:.0%}; small things are lost first"
            )
    if at_once > 1:
        advice.append(
            f"run.batch_size {max(1, run.batch_size // 2)}, now {run.batch_size}: half; the learning rate may have to "
            "follow it"
        )
    return advice or ["nothing more: every option is used; take a smaller network, or a device with more memory"]


def _at_once(recipe: Recipe, processes: int) -> int:
    """Images, at most."""
    return -(-recipe.run.batch_size // (processes * recipe.run.accumulation))
