"""A recipe that may suit the data, before it is known how fast this machine trains it."""

from dataclasses import dataclass, replace

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
    most: int
    """Training images, repetitions counted, from which on a longer training overfits."""


def merged(candidate: Candidate, same: Candidate | None) -> Candidate:
    """Of two that have become the same recipe: worth its time as soon as either is, and as long."""
    if same is None:
        return candidate
    return replace(candidate, images=min(candidate.images, same.images), most=max(candidate.most, same.most))
