"""Train on your images: botformer train VERB --data DIR [--minutes N], or a recipe by its name instead of VERB."""

import os
import shlex
import sys
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich import box
from rich.table import Table

from botformer.commands.screen import print_table
from botformer.commands.train_planned import VERBS, train_planned
from botformer.errors import unknown
from botformer.recipes import EXPERIMENTS, Experiment, find_experiment
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.terminal import screen

_DATA = {
    ClassificationRecipe: "DIR with train/CLASS/*.jpg and validation/CLASS/*.jpg, or with CLASS/*.jpg alone; tars, "
    "also on a server (http://HOST/train-{0000..0127}.tar); Parquet files; hfds/OWNER/NAME.",
    DetectionRecipe: "DIR with annotations/instances_train*.json, instances_val*.json and images (COCO; for key points "
    "person_keypoints_train*.json), with data.yaml (YOLO), or of Pascal VOC, LabelMe, VIA or Label Studio; a single "
    "annotation file.",
}


@dataclass(frozen=True)
class RunOptions:
    out: Path = Path()
    """Where checkpoints, journal and curves go; runs/RECIPE by default."""
    resume: Literal["auto", "never", "previous"] = "auto"
    """auto: continue the run in --out if there is one, else start. previous: likewise, where its last checkpoint is
    damaged from the one before it. never: start, and refuse a folder with a run."""
    extend: bool = False
    """Let the run in --out have another length (schedule.epochs or schedule.steps) than it began with. It continues
    with the learning rate that the new schedule has there: not what a run of that length would have given."""


def main(arguments: list[str]) -> None:
    if not arguments or arguments[0].startswith("-"):
        _print_recipes()
        if not {"-h", "--help"} & set(arguments):
            sys.exit(2)
        return
    if arguments[0] in VERBS:
        train_planned(arguments[0], arguments[1:])
        return
    if arguments[0] not in EXPERIMENTS:
        raise unknown("recipe", arguments[0], [*VERBS, *EXPERIMENTS])
    given = parse(find_experiment(arguments[0]), arguments[1:])
    from botformer.create.train_recipe import train_recipe  # heavy, and --help should not wait for it

    train_recipe(given.recipe, given.data, given.out, given.resume, given.extend)
    if int(os.environ.get("RANK", "0")) == 0:  # under torchrun the first process speaks for all
        command = shlex.join(["botformer", "evaluate", str(given.out), "--data", given.data])
        screen().print(f"Everything is in {given.out}. Next: {command}")


def parse(row: Experiment, arguments: list[str]) -> Any:
    """`RunOptions` with `data`, and with `recipe`: the row's, with the fields changed that the command line names."""
    kind = type(row.recipe)
    Arguments = make_dataclass(
        "Arguments",
        [
            ("data", Annotated[str, tyro.conf.arg(help=_DATA[kind])]),
            ("recipe", Annotated[kind, tyro.conf.arg(name="")]),
        ],
        bases=(RunOptions,),
        frozen=True,
        kw_only=True,
    )
    return tyro.cli(
        Arguments,
        default=Arguments(data=tyro.MISSING, out=Path("runs") / row.name, recipe=row.recipe),
        args=arguments,
        prog=f"botformer train {row.name}",
        description=f"Source: {row.source}. Paper: {row.paper}. Expect: {row.expect}. Cost: {_cost(row)}. "
        f"Command: `{row.command}`. Ours, because no source gives it: {', '.join(row.ours)}.",
    )


def _print_recipes() -> None:
    console = screen()
    console.print(f"{__doc__}\n")
    verbs = Table(box=box.SIMPLE, pad_edge=False)
    verbs.add_column("verb", no_wrap=True)
    verbs.add_column("trains, by a recipe that is made for the images, the machine and the time", overflow="fold")
    for name, (what, _) in VERBS.items():
        verbs.add_row(name, what)
    print_table(console, verbs)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for header in ("recipe", "paper", "expect", "cost"):
        table.add_column(header, overflow="fold", no_wrap=header == "recipe")
    for row in EXPERIMENTS.values():
        table.add_row(row.name, row.paper, row.expect, _cost(row))
    print_table(console, table)
    console.print(
        "botformer train VERB --help lists what can be set; "
        "botformer train RECIPE --help gives a recipe's command and lists its fields with their values."
    )


def _cost(row: Experiment) -> str:
    return f"{row.cost} (results/{row.receipt}.json)" if row.receipt else row.cost
