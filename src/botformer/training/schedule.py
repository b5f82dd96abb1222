"""The learning rate as a pure function of the step: there is no scheduler whose state could get lost."""

import math

from botformer.recipes.schema import Optimizer, Schedule


def learning_rate(step: int, steps: int, schedule: Schedule, steps_per_epoch: int, peak: float) -> float:
    """Learning rate of optimiser step `step` (0 is the first) in a run of `steps`.

    Warm-up is linear from `warmup_start * peak` at step 0 to `peak` at its end. After it, "cosine" falls from `peak`
    to 0, which step `steps` would reach; "step" multiplies by the factor at `round(milestone * steps)` and from there
    on. Milestones count from the start of the run, warm-up included.
    """
    warmup = warmup_steps(schedule, steps_per_epoch)
    if step < warmup:
        return peak * (schedule.warmup_start + (1 - schedule.warmup_start) * step / warmup)
    if schedule.kind == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
    passed = sum(step >= round(milestone * steps) for milestone in schedule.milestones)
    return peak * schedule.milestone_factor**passed


def peak_learning_rate(optimizer: Optimizer, batch_size: int) -> float:
    """The recipe's learning rate, in proportion to the batch where the recipe says for which batch it is."""
    return optimizer.learning_rate * (batch_size / optimizer.reference_batch if optimizer.reference_batch else 1.0)


def warmup_steps(schedule: Schedule, steps_per_epoch: int) -> int:
    return round(schedule.warmup_epochs * steps_per_epoch)
