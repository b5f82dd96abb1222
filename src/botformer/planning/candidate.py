"""A recipe that may suit the data, before it is known how fast this machine trains it."""

from dataclasses import dataclass

from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe


@dataclass(frozen=True)
class Candidate:
    """One row of the table of plans. The planner takes the first that gets its `images` within the minutes."""

    recipe: ClassificationRecipe | DetectionRecipe
    """Everything but what timing decides: schedule.epochs, run.precision, run.threads, run.workers, and
    run.evaluate_every. run.batch_size is a suggestion."""
    why: str
    """What it is and why it stands where it stands, for the table."""
    images: int
    """Training images, repetitions counted, that it needs to be worth its time."""
