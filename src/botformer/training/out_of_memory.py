"""A step or an evaluation that does not fit into memory: which options help, and by how much."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from botformer.errors import InputError
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Recipe

_NOTHING_MORE = "nothing more: every option is used; take a smaller network, or a device with more memory"
_ON_CPU = "DefaultCPUAllocator"
"""PyTorch raises a plain RuntimeError there."""
_OTHER_RUN = " (once there is a checkpoint: with another --out, from its weights by --model.weights)"
"""What belongs to the result cannot change within a run."""


def step_explained(recipe: Recipe, processes: int) -> AbstractContextManager[None]:
    """Raises `InputError` with advice where a training step finds no memory; `recipe` has its precision resolved."""
    return _explained(
        f"in a training step with {_at_once(recipe, processes)} images at a time in each process",
        "What is kept of images for the backward pass takes less with",
        lambda: memory_advice(recipe, processes),
    )


def evaluation_explained(recipe: Recipe) -> AbstractContextManager[None]:
    """As `step_explained`, of an evaluation, whose checkpoint is there already."""
    return _explained(
        f"in an evaluation of {recipe.evaluation_batch} images at a time in each process",
        "The run is saved, and the same command continues with this evaluation. It takes less with",
        lambda: evaluation_memory_advice(recipe),
    )


@contextmanager
def _explained(where: str, less: str, advice: Callable[[], list[str]]) -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and _ON_CPU not in str(error):
            raise
        said = str(error).strip().splitlines()
        raise InputError(
            f"out of memory {where} ({said[0] if said else 'MemoryError'}). {less}:\n"
            + "\n".join(f"  {line}" for line in advice())
        ) from error


def memory_advice(recipe: Recipe, processes: int) -> list[str]:
    """Options that this run does not use yet, those first that change least of the result; each with what remains of
    the activations' memory. Weights, gradients and the optimiser's state keep theirs."""
    model, run = recipe.model, recipe.run
    advice = []
    if not model.gradient_checkpointing:
        advice.append(
            "model.gradient_checkpointing true: a third of the backbone's (botnet50), one more forward pass; the same "
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
        advice.append(f"run.precision bf16, now float32: half, on devices that compute in it{_OTHER_RUN}")
    if isinstance(recipe, ClassificationRecipe | DetectionRecipe):
        side = recipe.images.size
        smaller = _smaller(side)
        if smaller < side:
            advice.append(
                f"images.size {smaller}, now {side}: {(smaller / side) ** 2:.0%}; small things are lost first"
                + _OTHER_RUN
            )
    if at_once > 1:
        advice.append(
            f"run.batch_size {max(1, run.batch_size // 2)}, now {run.batch_size}: half; the learning rate may have to "
            f"follow it{_OTHER_RUN}"
        )
    return advice or [_NOTHING_MORE]


def evaluation_memory_advice(recipe: Recipe) -> list[str]:
    """As `memory_advice`, of evaluation."""
    run, at_once = recipe.run, recipe.evaluation_batch
    advice = []
    if at_once > 1:
        half = -(-at_once // 2)
        parts = -(-run.batch_size // half)
        advice.append(
            f"run.accumulation {parts}, now {run.accumulation}: {half / at_once:.0%}, {half} images at a time; "
            "training steps are divided likewise, where BatchNorm sees fewer images at a time"
        )
    if isinstance(recipe, DetectionRecipe):
        side = recipe.images.canvas
        smaller = _smaller(side)
        if smaller < side:
            advice.append(
                f"images.test_size {smaller}, now {side}: {(smaller / side) ** 2:.0%}; small things are lost first. It "
                "changes what is measured, and needs a run of its own (--out)"
            )
    return advice or [_NOTHING_MORE]


def _smaller(side: int) -> int:
    """About half the pixels."""
    return max(32, round(side * 0.7 / 32) * 32)


def _at_once(recipe: Recipe, processes: int) -> int:
    """Images, at most."""
    return -(-recipe.run.batch_size // (processes * recipe.run.accumulation))
