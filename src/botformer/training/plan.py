"""What happens at which step. Steps are counted by how many are done: 0 at the start, `last` at the end."""

from dataclasses import dataclass

from botformer.errors import InputError
from botformer.recipes.schema import Recipe
from botformer.training.schedule import warmup_steps


@dataclass(frozen=True)
class Plan:
    steps_per_epoch: int
    steps: int
    """Length of the schedule."""
    last: int
    """Where the run stops, at or before `steps`."""
    evaluate_every: int
    checkpoint_every: int

    def epoch(self, step: int) -> float:
        return round(step / self.steps_per_epoch, 4)

    def evaluates(self, step: int) -> bool:
        return step == self.last or self._ends_epoch(step, self.evaluate_every)

    def saves(self, step: int) -> bool:
        return step == self.last or self._ends_epoch(step, self.checkpoint_every)

    def _ends_epoch(self, step: int, every: int) -> bool:
        return step > 0 and step % (every * self.steps_per_epoch) == 0


def make_plan(recipe: Recipe, steps_per_epoch: int) -> Plan:
    """The plan of a recipe. Raises `InputError` for settings that make no run."""
    run, schedule = recipe.run, recipe.schedule
    if steps_per_epoch < 1:
        raise InputError(
            f"there are fewer training images than one batch (run.batch_size {run.batch_size}); lower run.batch_size"
        )
    steps = schedule.epochs * steps_per_epoch
    if warmup_steps(schedule, steps_per_epoch) >= steps:
        raise InputError(
            f"the warm-up (schedule.warmup_epochs {schedule.warmup_epochs:g}) is as long as the whole run "
            f"(schedule.epochs {schedule.epochs}); lower schedule.warmup_epochs or raise schedule.epochs"
        )
    last = min(steps, run.max_steps or steps)
    return Plan(steps_per_epoch, steps, last, run.evaluate_every, run.checkpoint_every)
