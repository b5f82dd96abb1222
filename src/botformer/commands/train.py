"""Train a recipe on your pictures: botformer train RECIPE --data DIR --out DIR [--any.field value]."""

import logging
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from botformer.recipes import RECIPES, find_recipe
from botformer.recipes.check import check
from botformer.recipes.schema import Images, Model, Optimizer, Recipe, Run, Schedule


@dataclass(frozen=True)
class Arguments:
    data: str
    """DIR with train/CLASS/*.jpg and validation/CLASS/*.jpg, or with CLASS/*.jpg alone; tars; hfds/OWNER/NAME."""
    out: Path = Path()
    """Where checkpoints, journal and curves go; runs/RECIPE by default."""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue the run in --out if there is one, else start. never: refuse to touch one."""
    model: Model = field(default_factory=Model)
    images: Images = field(default_factory=Images)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    run: Run = field(default_factory=Run)


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        _print_recipes()
        if not {"-h", "--help"} & set(arguments):
            sys.exit(2)
        return
    name = arguments[0]
    recipe = find_recipe(name)
    given = tyro.cli(
        Arguments,
        default=Arguments(
            data=tyro.MISSING,
            out=Path("runs") / name,
            model=recipe.model,
            images=recipe.images,
            optimizer=recipe.optimizer,
            schedule=recipe.schedule,
            run=recipe.run,
        ),
        args=arguments[1:],
        prog=f"botformer train {name}",
        description=f"Source: {recipe.source}. Expect: {recipe.expect}. Cost: {recipe.cost}. "
        f"Ours, because no source gives it: {', '.join(recipe.ours)}.",
    )
    recipe = replace(
        recipe,
        model=given.model,
        images=given.images,
        optimizer=given.optimizer,
        schedule=given.schedule,
        run=given.run,
    )
    metrics = train(recipe, given.data, given.out, given.resume)
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun the first process speaks for all
        console = Console(soft_wrap=True)
        console.print("  ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float)))
        console.print(f"Everything is in {given.out}. Next: botformer evaluate {given.out} --data {given.data}")


def train(recipe: Recipe, data: str, out: Path, resume: Literal["auto", "never"]) -> dict[str, float | None]:
    """Pictures, network and loop of a recipe put together; the metrics of the last evaluation."""
    # Heavy, and --help should not wait for it.
    from botformer.create import create_classification_task
    from botformer.data.batches import evaluation_batches, training_batches
    from botformer.data.sources import open_sources
    from botformer.seeding import seed_all
    from botformer.training.devices import open_accelerator
    from botformer.training.loop import fit

    check(recipe)
    run = recipe.run
    process = open_accelerator(run)
    if not process.is_main_process:
        logging.disable(logging.INFO)  # one of several processes speaks for all
    train_source, validation_source = open_sources(data)
    seed_all(run.seed)  # the initial weights, the same in every process
    task = create_classification_task(recipe, train_source.class_names)
    share = dict(workers=run.workers, rank=process.process_index, world=process.num_processes)
    batches = training_batches(train_source, recipe.images, run.batch_size, run.seed, **share)
    per_process = max(1, run.batch_size // (process.num_processes * run.accumulation))
    evaluation = evaluation_batches(validation_source, recipe.images, per_process, **share)
    return fit(task, batches, evaluation, recipe, out, resume)


def _print_recipes() -> None:
    console = Console()
    console.print(f"{__doc__}\n")
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("recipe", "expect", "cost"):
        table.add_column(header, overflow="fold", no_wrap=header == "recipe")
    for name, recipe in RECIPES.items():
        table.add_row(name, recipe.expect, recipe.cost)
    console.print(table)
    console.print("botformer train RECIPE --help lists every field of a recipe and its value there.")
