"""What a run computes otherwise once its batches are divided among other processes, or into other parts."""

from typing import NamedTuple

from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Recipe


class Division(NamedTuple):
    """Of a batch: among processes, and of each process's images into parts that are computed one after the other."""

    processes: int
    accumulation: int


def inexact_reasons(recipe: Recipe, before: Division, now: Division) -> list[str]:
    """Why a run that continues with another division differs, beyond rounding, from one that kept it; none where it
    does not. The images of a step are the same in any case."""
    if before == now:
        return []
    reasons = []
    if _has(recipe, "batch"):
        reasons.append("normalization batch: BatchNorm sees the images of one part of one process at a time")
    if _parts_change(recipe, before, now):
        if _has(recipe, "sync"):
            reasons.append("normalization sync: BatchNorm sees the images of one part at a time")
        if isinstance(recipe, DetectionRecipe):
            reasons.append("losses of boxes and masks: each is a mean over the regions of a part, then over the parts")
    if recipe.model.dropout or recipe.model.drop_path:
        reasons.append("model.dropout and model.drop_path: every part of every process draws anew")
    if isinstance(recipe, ClassificationRecipe) and (recipe.images.mixup or recipe.images.cutmix):
        reasons.append("images.mixup and images.cutmix: images are paired within a part of one process")
    return reasons


def division_note(recipe: Recipe, before: Division, now: Division) -> str | None:
    """What the log says where a run continues with another division of its batches; None where it is the same."""
    if before == now:
        return None
    changed = (
        f"batches were divided among processes: {before.processes}, parts: {before.accumulation}; are now among "
        f"processes: {now.processes}, parts: {now.accumulation}. The images of every step stay the same"
    )
    reasons = inexact_reasons(recipe, before, now)
    if not reasons:
        return f"{changed}, and so does what they teach, but for rounding"
    return f"{changed}, but not all that they teach: {'; '.join(reasons)}"


def _has(recipe: Recipe, normalization: str) -> bool:
    kinds = {recipe.model.normalization}
    if isinstance(recipe, DetectionRecipe):
        kinds.add(recipe.settings.normalization)
    return normalization in kinds


def _parts_change(recipe: Recipe, before: Division, now: Division) -> bool:
    """Whether other images are computed at one time, by all processes together."""
    if before.accumulation != now.accumulation:
        return True
    divisible = all(recipe.run.batch_size % (each.processes * each.accumulation) == 0 for each in (before, now))
    return before.accumulation > 1 and not divisible
