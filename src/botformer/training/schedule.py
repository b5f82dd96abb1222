"""What happens at which step: the learning rate, evaluations and checkpoints, as pure functions of the step.

There is no scheduler whose state could get lost. Steps are counted by how many are done: 0 at the start.
"""

import math
from dataclasses import dataclass

from botformer.errors import InputError
from botformer.recipes.schema import Optimizer, Recipe, Schedule


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


@dataclass(frozen=True)
class Plan:
    steps_per_epoch: int
    steps: int
    """Length of the schedule."""
    last: int
    """Where the run stops, at or before `steps`."""
    evaluate_every: float
    checkpoint_every: float
    checkpoint_every_steps: int = 0

    def epoch(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 4)

    def evaluates(self, step: int) -> bool:
        return step == self.last or self._ends_epoch(step, self.evaluate_every)

    def saves(self, step: int) -> bool:
        """Before an evaluation, too: one that fails costs no step."""
        every = self.checkpoint_every_steps
        return (
            self.evaluates(step)
            or self._ends_epoch(step, self.checkpoint_every)
            or (every > 0 and step > 0 and step % every == 0)
        )

    def records(self, step: int) -> bool:
        """Whether the step goes into the journal: each of the first epoch, later about a hundred per epoch."""
        return step <= self.steps_per_epoch or step == self.last or step % max(1, self.steps_per_epoch // 100) == 0

    def _ends_epoch(self, step: int, every: float) -> bool:
        return step > 0 and step % max(1, round(every * self.steps_per_epoch)) == 0


def make_plan(recipe: Recipe, steps_per_epoch: int) -> Plan:
    """The plan of a recipe. Raises `InputError` for settings that make no run."""
    run, schedule = recipe.run, recipe.schedule
    if steps_per_epoch < 1:
        raise InputError(
            f"there are fewer training images than one batch (run.batch_size {run.batch_size}); lower run.batch_size"
        )
    steps = schedule.steps or schedule.epochs * steps_per_epoch
    if warmup_steps(schedule, steps_per_epoch) >= steps:
        length = "steps" if schedule.steps else "epochs"
        raise InputError(
            f"the warm-up (schedule.warmup_epochs {schedule.warmup_epochs:g}) is as long as the whole run "
            f"(schedule.{length} {getattr(schedule, length)}); lower schedule.warmup_epochs or raise schedule.{length}"
        )
    last = min(steps, run.max_steps or steps)
    return Plan(steps_per_epoch, steps, last, run.evaluate_every, run.checkpoint_every, run.checkpoint_every_steps)
