"""Three small BoTNets trained from nothing: they outline nuclei, read handwritten digits, and find them. Then a report.

Minutes on a CPU, no network, no downloads: the micrograph, the digits and the photographs come with installed packages.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from botformer.errors import InputError
from botformer.recipes import find_recipe

FEWEST = 640
SCENES_A_IMAGE = 0.08


@dataclass(frozen=True)
class Arguments:
    out: Path = Path("runs/demo")
    """Where data, checkpoints, results.json and report.html go. A run that is there is continued."""
    images: int = 40_000
    """Images of digits to train on. Eight scenes of several digits are written for a hundred of them, and a twentieth
    of either with other digits and photographs for the evaluation."""
    epochs: int = 0
    """Passes over the data of each part; 0: as many as its recipe says."""


@dataclass(frozen=True)
class Part:
    """One network of the demo."""

    recipe: Any
    folder: Path
    """Of `data`, `run` and `evaluation`."""
    results: dict[str, Any]
    """What `botformer evaluate` found."""

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"


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


def main(arguments: list[str]) -> None:
    given = tyro.cli(Arguments, args=arguments, prog="botformer demo", description=__doc__)
    from rich.console import Console

    report, nuclei, digits, scenes = demo(given.out, given.images, given.epochs)
    console = Console(soft_wrap=True)
    console.print(
        f"nuclei: mask AP50 {nuclei.results['mask']['AP50']:.3f} on the unseen strip; digits: "
        f"{digits.results['top1']:.1%} of {digits.results['images']:,} unseen ones are right; digits in scenes: "
        f"mask AP50 {scenes.results['mask']['AP50']:.3f} on {scenes.results['images']:,} unseen scenes"
    )
    console.print(f"The report: {report}")
    console.print(f"Try one on an image: botformer predict IMAGE --checkpoint {nuclei.run}")


def demo(out: Path, images: int, epochs: int = 0) -> tuple[Path, Part, Part, Part]:
    """Data, training, evaluation and report, in OUT. Returns the report and nuclei, digits, scenes."""
    from botformer.commands.demo_report import write_demo_report
    from botformer.data.synthetic.digit_scenes import write_digit_scenes
    from botformer.data.synthetic.digits import write_digits
    from botformer.data.synthetic.nuclei_crops import write_nuclei

    if images < FEWEST:
        raise InputError(f"--images {images} are too few to learn from; expected {FEWEST} or more")
    clock = Clock()
    folders = {name: out / name for name in ("nuclei", "digits", "scenes")}
    scenes = round(images * SCENES_A_IMAGE)
    # All data first: what is not installed is missed before anything is trained.
    with clock.part("nuclei: writing the images"):
        write_nuclei(folders["nuclei"] / "data")
    with clock.part("digits: writing the images"), _progress(images + _held_out(images)) as advance:
        write_digits(folders["digits"] / "data", images, _held_out(images), on_image=advance)
    with clock.part("scenes: writing the images"), _progress(scenes + _held_out(scenes)) as advance:
        write_digit_scenes(folders["scenes"] / "data", scenes, _held_out(scenes), on_image=advance)
    nuclei = _learn("nuclei_mini", folders["nuclei"], epochs, clock)
    digits = _learn("digits", folders["digits"], epochs, clock)
    found = _learn("digit_scenes", folders["scenes"], epochs, clock, weights=str(digits.run))
    report = out / "report.html"
    with clock.part("drawing"):
        write_demo_report(report, nuclei, digits, found, clock.seconds)
    figures = {
        "nuclei mask AP50": nuclei.results["mask"]["AP50"],
        "nuclei mask AP": nuclei.results["mask"]["AP"],
        "digits top1": digits.results["top1"],
        "scenes mask AP50": found.results["mask"]["AP50"],
        "scenes mask AP": found.results["mask"]["AP"],
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
    }
    (out / "results.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return report, nuclei, digits, found


def _learn(name: str, folder: Path, epochs: int, clock: Clock, weights: str = "") -> Part:
    """Train the recipe of this name on FOLDER/data, from these weights, and evaluate it."""
    from botformer.commands import evaluate
    from botformer.commands.train import train

    recipe = find_recipe(name)
    recipe = replace(recipe, model=replace(recipe.model, weights=weights))
    if epochs:
        recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs, warmup_epochs=epochs / 20))
    data, run, evaluation = folder / "data", folder / "run", folder / "evaluation"
    what = "training, continued from an earlier run" if (run / "last").exists() else "training"
    with clock.part(f"{folder.name}: {what}"):
        train(recipe, str(data), run, "auto")
    with clock.part(f"{folder.name}: evaluating"):
        results = evaluate.evaluate_checkpoint(evaluate.Arguments(run, str(data), out=evaluation, workers=0))
    return Part(recipe, folder, results)


def _held_out(images: int) -> int:
    return max(images // 20, 10)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on the screen; yields the function that moves it by one."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda: progress.advance(bar)
