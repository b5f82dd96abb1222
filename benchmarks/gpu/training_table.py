"""Training at real size: one row of data per network and data set, the most important first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.evidence_rows import SIZE_512
from botformer.environment import cores
from botformer.recipes import find_recipe
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe

AnyRecipe = ClassificationRecipe | DetectionRecipe


@dataclass(frozen=True)
class Receipt:
    """What the rows of one receipt have in common."""

    title: str
    pack: str
    """Of `data_packs.PACKS`."""
    metrics: tuple[str, ...]
    """Of the last evaluation."""
    notes: str
    at_once: int = 1
    """How many of its trainings share the GPU: more than one where each would leave most of it idle. Then their images
    per second say nothing of the networks."""


RECEIPTS = {
    "nuclei": Receipt(
        "Nuclei (dsb2018): Mask R-CNN with R50 and BoT50, one recipe, equal budgets",
        "nuclei",
        ("mask_AP", "mask_AP50", "box_AP", "box_AP50"),
        "Random initial weights: a comparison at equal budget. The validation images were split off by a hash of their "
        "names; crops of one slide may be in both splits. All six trainings share one GPU.",
        at_once=6,
    ),
    "cifar10": Receipt(
        "CIFAR-10 (JPEG copy): networks of BoTNet-50's size, trained from scratch, a shortened recipe",
        "cifar10",
        ("top1", "top5"),
        "30 epochs instead of the recipe's 200, everything else in proportion: not what these networks can reach. The "
        "images are a lossy JPEG copy, so figures are not strictly comparable with papers.",
    ),
    "positions": Receipt(
        "CIFAR-10 (JPEG copy): what BoTNet-50's attention knows about positions",
        "cifar10",
        ("top1", "top5"),
        "10 epochs and one seed: differences of a few tenths of a point mean nothing.",
    ),
    "nuclei_ablation": Receipt(
        "Nuclei (dsb2018): the paper's comparisons at full width",
        "nuclei",
        ("mask_AP", "mask_APs", "mask_APm", "box_AP"),
        "The rows of results/EVIDENCE.md with networks of full width, from random initial weights and so for longer. "
        "One thing is changed of the recipe of nuclei_gpu at a time.",
        at_once=6,
    ),
}
COLUMNS = (
    "steps: optimiser steps done; at_once: trainings on this GPU at the same time; images_per_s: median over the "
    "steps; seconds: of all training steps, without evaluations; memory_mb: peak, of the device where it is known; "
    "waited: fraction of the time in which the training process waited for the loader, while a GPU may have been busy "
    "with the step before (without steps of more than ten times the median, the first of a call); metrics: of the last "
    "evaluation."
)


@dataclass(frozen=True)
class Row:
    """One or more trainings that differ in the seed alone."""

    name: str
    recipe: str
    """Row of `botformer.recipes`."""
    receipt: str
    """Key of `RECEIPTS`."""
    epochs: int
    """The warm-up keeps its fraction of them."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of the recipe, such as {"run.batch_size": 512}."""
    seeds: tuple[int, ...] = (0,)


_CIFAR10 = {
    "run.batch_size": 512,
    "run.precision": "bf16",
    "optimizer.reference_batch": 256,  # what the recipe's learning rate is for
    "run.evaluate_every": 5,
    "run.checkpoint_every": 5,
}
_NUCLEI = {
    "run.batch_size": 16,
    "run.precision": "bf16",
    "run.threads": 2,
    "run.evaluate_every": 8,
    "run.checkpoint_every": 8,
    "optimizer.learning_rate": 1e-3,
}
_SEEDS = (0, 1, 2)

RUNS = (
    #         name                       recipe           receipt  epochs  changes      seeds
    Row("nuclei_resnet50",      "nuclei_resnet50",      "nuclei",  16, _NUCLEI, _SEEDS),
    Row("nuclei_botnet50",      "nuclei_botnet50",      "nuclei",  16, _NUCLEI, _SEEDS),
    Row("cifar10_botnet_s1_50", "cifar10_botnet_s1_50", "cifar10", 30, _CIFAR10),
    Row("cifar10_resnet50",     "cifar10_resnet50",     "cifar10", 30, _CIFAR10),
    *(
        Row(f"position_{position}", "cifar10_botnet50", "positions", 10, _CIFAR10 | {"model.position": position})
        for position in ("relative", "none", "absolute", "position_only", "blog")
    ),
    *(
        Row(f"nuclei_{kind}", "nuclei_botnet50", "nuclei_ablation", 16, _NUCLEI | {"model.position": kind}, _SEEDS)
        for kind in ("none", "position_only", "absolute")
    ),
    *(
        Row(f"nuclei_{model}_{name}", f"nuclei_{model}", "nuclei_ablation", epochs, _NUCLEI | changes, _SEEDS)
        for name, epochs, changes in (
            ("32_epochs", 32, {}),
            ("64_epochs", 64, {}),
            ("jitter_0.1", 16, {"images.scale_jitter": (0.1, 2.0)}),
            ("512_px", 16, SIZE_512),
        )
        for model in ("resnet50", "botnet50")
    ),
)  # fmt: skip

_QUICK = {
    "run.batch_size": 4,
    "run.max_steps": 4,
    "run.precision": "float32",
    "run.threads": 1,
    "run.device": "cpu",
}
_QUICK_SIZE = {"cifar10": 32, "nuclei": 64, "positions": 32, "nuclei_ablation": 64}


@dataclass(frozen=True)
class Job:
    """One training."""

    row: Row
    recipe: AnyRecipe

    @property
    def seed(self) -> int:
        return self.recipe.run.seed

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.row.name}_{self.seed}"


def jobs(names: tuple[str, ...] = (), quick: bool = False) -> Iterator[Job]:
    """The trainings of these rows, of all by default: first seed 0 of every row of a receipt, then seed 1, ...

    Quick: the first row of each receipt with its first seed, at a tiny size.
    """
    chosen = [row for row in RUNS if not names or row.name in names]
    for receipt in RECEIPTS:
        rows = [row for row in chosen if row.receipt == receipt]
        if quick:
            yield from (Job(row, quick_recipe(row)) for row in rows[:1])
            continue
        for seed in sorted({seed for row in rows for seed in row.seeds}):
            yield from (Job(row, full_recipe(row, seed)) for row in rows if seed in row.seeds)


def full_recipe(row: Row, seed: int = 0) -> AnyRecipe:
    schedule = find_recipe(row.recipe).schedule
    return changed(
        find_recipe(row.recipe),
        {
            "schedule.epochs": row.epochs,
            "schedule.warmup_epochs": schedule.warmup_epochs * row.epochs / schedule.epochs,
            "run.seed": seed,
            # One core is for each training process.
            "run.workers": max(1, min(cores() // RECEIPTS[row.receipt].at_once - 1, 12)),
            **row.changes,
        },
    )


def quick_recipe(row: Row) -> AnyRecipe:
    recipe = full_recipe(row, row.seeds[0])
    family = "botnet" if recipe.model.name.startswith("botnet") else "resnet"
    size = {"model.name": f"{family}_nano", "images.size": _QUICK_SIZE[row.receipt], "run.workers": 0}
    return changed(recipe, _QUICK | size)


def changed(recipe: AnyRecipe, changes: Mapping[str, Any]) -> AnyRecipe:
    """The recipe with other values of some fields, "group.field" each."""
    for name, value in changes.items():
        group, _, option = name.partition(".")
        recipe = replace(recipe, **{group: replace(getattr(recipe, group), **{option: value})})
    return recipe
