"""Train a small BoTNet on handwritten digits, measure it on unseen ones, and write a report: minutes on a CPU."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from botformer.errors import InputError
from botformer.recipes import find_recipe
from botformer.recipes.schema import Recipe

CENTRE = (0.5, 0.5)
SHOWN = 8
FEWEST = 640


@dataclass(frozen=True)
class Arguments:
    out: Path = Path("runs/demo")
    """Where data, checkpoints and report.html go. A run that is there is continued."""
    pictures: int = 40_000
    """Training pictures to write; a twentieth as many are made of other digits and photographs for the evaluation."""
    epochs: int = 0
    """Passes over them; 0: as many as the recipe says."""


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer demo", description=__doc__)
    from rich.console import Console

    report, results = demo(given.out, given.pictures, given.epochs)
    console = Console()
    console.print(f"{results['top1']:.1%} of {results['pictures']:,} unseen digits are right. The report: {report}")
    console.print(f"Try it on a picture: botformer predict PICTURE --checkpoint {given.out / 'run'}", soft_wrap=True)


def demo(out: Path, pictures: int, epochs: int = 0) -> tuple[Path, dict[str, Any]]:
    """Data, training, evaluation, predictions and report, in OUT. Returns the report's path and the evaluation."""
    from rich.console import Console
    from rich.progress import Progress

    from botformer.commands.evaluate import evaluate_checkpoint
    from botformer.commands.train import train
    from botformer.data.digits import write_digits
    from botformer.pictures.predictions import draw_gallery, draw_prediction

    if pictures < FEWEST:
        raise InputError(f"--pictures {pictures} are too few to learn from; expected {FEWEST} or more")
    clock = Clock()
    data, run = out / "data", out / "run"
    recipe = find_recipe("digits")
    if epochs:
        recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs))
    with clock.part("writing the pictures"):
        validation = max(pictures // 20, 10)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("", total=pictures + validation)
            write_digits(data, pictures, validation, on_picture=lambda: progress.advance(bar))
    with clock.part("training, continued from an earlier run" if (run / "last").exists() else "training"):
        train(recipe, str(data), run, "auto")
    with clock.part("evaluating"):
        results = evaluate_checkpoint(run, str(data), "validation", out / "evaluation", 64, 0, recipe.run.device)
    with clock.part("predicting and drawing"):
        right, wrong = _predictions(run, data)
        gallery = out / "gallery.png"
        draw_gallery([*right[: SHOWN - min(len(wrong), 2)], *wrong[:2]], gallery)
        close_up = out / "prediction.png"
        draw_prediction(**vars(right[0]), out=close_up)
    report = out / "report.html"
    _write_report(report, recipe, run, results, clock, gallery, close_up)
    return report, results


def _changed(recipe: Recipe) -> str:
    """What the command line needs to say besides the recipe's name."""
    epochs = recipe.schedule.epochs
    return "" if recipe == find_recipe("digits") else f" --schedule.epochs {epochs}"


class Clock:
    """How long each part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        from rich.console import Console

        Console(stderr=True).print(f"{name} ...")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _predictions(run: Path, data: Path) -> tuple[list[Any], list[Any]]:
    """Predictions on unseen pictures, one a class first: those that are right and those that are wrong."""
    from botformer.commands.predict import look_at
    from botformer.create import load

    model, card = load(run)
    right, wrong = [], []
    for number in range(8):
        for folder in sorted((data / "validation").iterdir()):
            files = sorted(folder.iterdir())
            if number < len(files):
                prediction = replace(look_at(model, card, files[number], CENTRE), truth=folder.name)
                (wrong if prediction.is_wrong else right).append(prediction)
    return right, wrong


def _write_report(
    report: Path, recipe: Recipe, run: Path, results: dict[str, Any], clock: Clock, gallery: Path, close_up: Path
) -> None:
    import json
    import os
    import platform

    from botformer.backbone.counting import count
    from botformer.backbone.variants import find_row
    from botformer.pictures.report import Picture, Preformatted, Section, Table, write_report

    versions = json.loads((run / "versions.json").read_text(encoding="utf-8"))
    counts = count(find_row(recipe.model.name), recipe.images.size, num_classes=10)
    seconds = clock.seconds
    continued = any("continued" in part for part in seconds)
    out = report.parent
    sections = [
        Section(
            "In short",
            [
                f"A {recipe.model.name} with {counts.parameters:,} parameters learned to read handwritten digits on "
                f"photographs: {results['top1']:.1%} of {results['pictures']:,} pictures of digits and photographs it "
                f"had never seen are right. {'This time it' if continued else 'Everything'} took "
                f"{sum(seconds.values()):.0f} seconds.",
                "The pictures are synthetic scenes from real parts: digits that people wrote (MNIST), pasted on crops "
                "of photographs. Training and evaluation share neither digits nor photographs. It is a demonstration, "
                "not a benchmark.",
                Table(
                    ("part", "seconds"),
                    [(name, f"{value:.1f}") for name, value in seconds.items()],
                ),
            ],
        ),
        Section(
            "What it sees",
            [
                "Each picture stands beside the attention of the network's last stage, which looks at the whole map "
                "from one position. The titles say what it read; where it is wrong, what stands there.",
                Picture(gallery, "Unseen pictures with the attention from their centre, averaged over the four heads."),
                Picture(close_up, "One of them: the five most probable digits, and where the attention looks."),
            ],
        ),
        Section(
            "How it learned",
            [Picture(run / "curves.png", "Loss, learning rate and accuracy on unseen pictures over the epochs.")],
        ),
        Section(
            "Where it errs",
            [Picture(out / "evaluation" / "confusion.png", "Truth in rows, predictions in columns.")],
        ),
        Section(
            "What was run",
            [
                "The demo is these commands, one after the other:",
                Preformatted(
                    f"botformer train digits --data {out / 'data'} --out {run}{_changed(recipe)}\n"
                    f"botformer evaluate {run} --data {out / 'data'}\n"
                    f"botformer predict PICTURE... --checkpoint {run}"
                ),
                Table(
                    ("setting", "value"),
                    [
                        ("network", recipe.model.name),
                        ("epochs", str(recipe.schedule.epochs)),
                        ("batch", str(recipe.run.batch_size)),
                        ("optimiser", f"{recipe.optimizer.name}, learning rate {recipe.optimizer.learning_rate}"),
                        ("seed", str(recipe.run.seed)),
                        ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"),
                        *((name, str(version)) for name, version in versions.items()),
                    ],
                ),
                "The same on your own pictures, in folders named after their classes:",
                Preformatted("botformer train digits --data DIR --out runs/mine --images.size 96 --images.flip"),
            ],
        ),
    ]
    write_report(report, "botformer demo: reading digits", sections)
