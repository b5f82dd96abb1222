"""botformer train classify | segment | detect | keypoints | auto: a recipe made for your images and your time."""

import logging
import os
import shlex
import time
from dataclasses import asdict, dataclass, make_dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich import box
from rich.table import Table

from botformer.commands.screen import print_table, progress_bar
from botformer.errors import InputError
from botformer.read_file import at_home
from botformer.recipes.from_json import flat, with_fields
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Run
from botformer.terminal import screen
from botformer.text import duration

if TYPE_CHECKING:
    from botformer.planning.look_at_data import Found
    from botformer.planning.plan import TrainingPlan

VERBS: dict[str, tuple[str, ClassificationRecipe | DetectionRecipe]] = {
    "classify": ("a classifier from images in class folders", ClassificationRecipe()),
    "segment": ("a detector of boxes and masks from annotated images", DetectionRecipe(detector="mask_rcnn")),
    "detect": ("a detector of boxes from annotated images", DetectionRecipe(detector="faster_rcnn")),
    "keypoints": ("a detector of boxes and key points", DetectionRecipe(detector="keypoint_rcnn")),
    "auto": ("whichever of these the images are for", ClassificationRecipe()),
}
"""Name -> what it trains, and the kind of recipe."""

log = logging.getLogger("botformer")


@dataclass(frozen=True, kw_only=True)
class PlannedOptions:
    data: str
    """Folder of the images, in any layout that `botformer train RECIPE` reads."""
    minutes: float | None = None
    """Time from now to the end: timing, training, evaluations and the report. None: a full training, whose duration is
    said first."""
    out: Path | None = None
    """Where the run goes; runs/VERB-NAME by default, NAME being that of the data. A run that is there is continued."""
    resume: Literal["auto", "never", "previous"] = "auto"
    """auto: continue the run in --out if there is one, else start. previous: likewise, where its last checkpoint is
    damaged from the one before it. never: start, and refuse a folder with a run."""
    extend: bool = False
    """Let the run in --out have another length (schedule.epochs or schedule.steps) than it began with. It continues
    with the learning rate that the new schedule has there: not what a run of that length would have given."""


def train_planned(verb: str, arguments: list[str]) -> None:
    began = time.monotonic()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"`botformer train {verb}` plans, trains and evaluates in one process, and torchrun started several; train "
            "a recipe by name (botformer train lists them), or leave torchrun out"
        )
    if verb == "auto" and not {"-h", "--help"} & set(arguments):
        from botformer.planning.look_at_data import look  # heavy, and --help should not wait for it

        found = look(_data_of(arguments), "auto")
        verb = found.verb
    else:
        found = None
    given = parse(verb, arguments)
    if given.minutes is not None and not 0 < given.minutes < float("inf"):
        raise InputError(f"--minutes is {given.minutes}; more than 0 is expected")
    fixed = given_fields(arguments, given.recipe)
    if "schedule.epochs" in fixed:
        fixed = {"schedule.steps": 0} | fixed  # which would count more

    from botformer.create.train_recipe import train_recipe
    from botformer.planning.look_at_data import look
    from botformer.planning.saved_plan import saved_recipe, tests_at_the_end
    from botformer.training.trackers import find_trackers

    find_trackers(given.recipe.run.trackers)  # what is missing is said before anything is looked at or timed
    say = screen(stderr=True)
    if found is None:
        asked: Any = verb
        found = look(given.data, asked, getattr(given.recipe.images, "max_bad_records", 0))
    say.print(f"{given.data}: {found.summary}")
    out = given.out or Path("runs") / f"{found.verb}-{_name_of(given.data)}"
    recipe = saved_recipe(out, found.verb, given.minutes) if given.resume != "never" else None
    if recipe is not None:
        say.print(f"continuing the run in {out} as it was planned")
        recipe = with_fields(recipe, fixed)
    else:
        recipe = _planned(found, given, fixed, out, began, verb, arguments, say)
    train_recipe(recipe, given.data, out, given.resume, given.extend)
    if not tests_at_the_end(out):
        found = replace(found, test=0)
    _finish(out, given.data, found, recipe.run, began)


def parse(verb: str, arguments: list[str]) -> Any:
    """`PlannedOptions` with `recipe`, whose fields have their default values where the command line names none."""
    what, recipe = VERBS[verb]
    Arguments = make_dataclass(
        "Arguments",
        [("recipe", Annotated[type(recipe), tyro.conf.arg(name="")])],
        bases=(PlannedOptions,),
        frozen=True,
        kw_only=True,
    )
    return tyro.cli(
        Arguments,
        default=Arguments(data=tyro.MISSING, recipe=recipe),
        args=arguments,
        prog=f"botformer train {verb}",
        description=f"Train {what}. The recipe is planned from the images and from how fast this machine is: a field "
        "that you set is kept, and planned around; the values shown here are only those that a recipe has by itself. "
        '--model.weights "" starts from random weights.',
    )


def given_fields(arguments: list[str], recipe: ClassificationRecipe | DetectionRecipe) -> dict[str, Any]:
    """The fields that the command line names, such as "run.batch_size", with their values in `recipe`."""
    values = flat(asdict(recipe))
    named = [argument[2:].partition("=")[0].replace("-", "_") for argument in arguments if argument.startswith("--")]
    given: dict[str, Any] = {}
    for name in named:
        group, dot, field = name.rpartition(".")
        for known in (name, group + dot + field.removeprefix("no_")):
            if known in values:
                given[known] = values[known]
                break
    return given


def _planned(
    found: "Found",
    given: Any,
    fixed: dict[str, Any],
    out: Path,
    began: float,
    verb: str,
    arguments: list[str],
    say: Any,
) -> ClassificationRecipe | DetectionRecipe:
    """Plan, say so, and write it down."""
    from botformer.planning.plan import make_plan_for, timing_seconds
    from botformer.planning.saved_plan import write_plan
    from botformer.training.resume import find_start
    from botformer.training.run_lock import run_lock

    find_start(out, given.recipe, "never")  # a folder that holds another run is refused before anything is timed
    with run_lock(out):  # another start of this command, which would plan anew, is refused from here on
        find_start(out, given.recipe, "never")
        seconds = timing_seconds(given.minutes)
        say.print(f"timing networks on this machine with these images, for about {duration(seconds)}")
        plan = make_plan_for(found, given.minutes, fixed, began)
        end = datetime.now() + timedelta(seconds=plan.seconds)
        _print_plan(plan, given.minutes, end, say)
        command = shlex.join(["botformer", "train", verb, *arguments])
        write_plan(out, plan, found, given.minutes, given.data, command, end.isoformat(timespec="seconds"))
        return plan.recipe


def _print_plan(plan: "TrainingPlan", minutes: float | None, end: datetime, say: Any) -> None:
    now = datetime.now()
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("network", no_wrap=True)
    for header in ("px", "batch", "images/s", "epochs", "end"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in plan.rows:
        numbers = (
            ("-", "-", "-")
            if row.images_per_s is None or row.epochs is None or row.seconds is None
            else (f"{row.images_per_s:.1f}", f"{row.epochs:.1f}", _clock(now + timedelta(seconds=row.seconds), now))
        )
        table.add_row(row.model, str(row.px), str(row.batch_size), *numbers, row.remark)
    print_table(say, table)
    chosen = next(row for row in plan.rows if row.chosen)
    recipe = plan.recipe
    say.print(
        f"{chosen.model} ({chosen.why}; weights: {chosen.weights or 'random'}), {chosen.px} px: "
        f"{recipe.schedule.steps or recipe.schedule.epochs:,} {'steps' if recipe.schedule.steps else 'epochs'} of "
        f"{chosen.batch_size} images in {recipe.run.precision}, {recipe.run.threads or 'all'} threads, "
        f"{recipe.run.workers} readers"
    )
    for note in plan.notes:
        say.print(note)
    if minutes is not None and plan.seconds > 60 * minutes:
        say.print(
            f"{minutes:g} minutes are too short for images like these on this machine: this takes the fastest network "
            "and the fewest steps, ends late, and its accuracy will be poor"
        )
    elif not plan.is_enough and minutes is not None:
        say.print("more minutes would give a clearly better network")
    say.print(f"expected to end at {_clock(end, now)}, in {duration(plan.seconds)}")


def _finish(out: Path, data: str, found: "Found", run: Run, began: float) -> None:
    """The test split, the report, and what to do next."""
    say = screen(stderr=True)
    if found.test:
        from botformer.commands.evaluate import Arguments, evaluate

        say.print("the best checkpoint on the test split:")
        try:
            evaluate(Arguments(out, data, split="test", out=out / "test", device=run.device, workers=run.workers))
        except InputError as error:
            log.warning("the test split was not measured: %s", error)
    report = _report(out, data, run)
    console = screen()
    console.print(
        f"Done in {duration(time.monotonic() - began)}. Everything is in {out}" + (f": {report}" * bool(report))
    )
    console.print(f"Next: botformer predict IMAGES --checkpoint {shlex.quote(str(out))}")


def _report(out: Path, data: str, run: Run) -> str:
    """Where the page is, with results of as many validation images as the training looked at; empty where none could be
    made, which costs nobody the network."""
    from botformer.report.run_report import write_run_report

    try:
        with progress_bar("evaluating for the report") as bar:
            return str(write_run_report(out, data, bar.show, run.evaluation_images, run.device))
    except InputError as error:
        log.warning("no report: %s", error)
        return ""


def _data_of(arguments: list[str]) -> str:
    for place, argument in enumerate(arguments):
        if argument.startswith("--data="):
            return argument.partition("=")[2]
        if argument == "--data" and place + 1 < len(arguments):
            return arguments[place + 1]
    raise InputError("botformer train auto needs the folder of the images: --data DIR")


def _name_of(data: str) -> str:
    at = at_home(data).resolve()
    return at.stem if at.is_file() else at.name


def _clock(moment: datetime, now: datetime) -> str:
    return f"{moment:%H:%M:%S}" if moment.date() == now.date() else f"{moment:%d %b %H:%M}"
