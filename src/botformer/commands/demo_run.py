"""What the demo does: data, training, evaluation and report, part by part."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from botformer.atomic_write import write_json
from botformer.commands.demo_report import Part, write_demo_report
from botformer.commands.screen import progress_bar
from botformer.create.train_recipe import train_recipe
from botformer.data.synthetic.digit_scenes import write_digit_scenes
from botformer.data.synthetic.digits import write_digits
from botformer.data.synthetic.nuclei_crops import write_nuclei
from botformer.evaluate.evaluate_checkpoint import evaluate_checkpoint
from botformer.evaluate.options import EvaluateOptions
from botformer.recipes import find_recipe
from botformer.terminal import screen

SCENES_PER_IMAGE = 0.08


class Clock:
    """How long each part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        screen(stderr=True).print(f"{name} ...")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def run_demo(out: Path, images: int, epochs: int = 0) -> tuple[Path, Part, Part, Part]:
    """Data, training, evaluation and report, in OUT. Returns the report and nuclei, digits, scenes."""
    clock = Clock()
    folders = {name: out / name for name in ("nuclei", "digits", "scenes")}
    scenes = round(images * SCENES_PER_IMAGE)
    # All data first: a missing package is noticed before anything is trained.
    with clock.part("nuclei: writing the images"):
        write_nuclei(folders["nuclei"] / "data")
    with clock.part("digits: writing the images"), progress_bar("", images + _held_out(images)) as bar:
        write_digits(folders["digits"] / "data", images, _held_out(images), on_image=bar.advance)
    with clock.part("scenes: writing the images"), progress_bar("", scenes + _held_out(scenes)) as bar:
        write_digit_scenes(folders["scenes"] / "data", scenes, _held_out(scenes), on_image=bar.advance)
    nuclei = _train_and_evaluate("nuclei_mini", folders["nuclei"], epochs, clock)
    digits = _train_and_evaluate("digits", folders["digits"], epochs, clock)
    found = _train_and_evaluate("digit_scenes", folders["scenes"], epochs, clock, weights=str(digits.run))
    report = out / "report.html"
    with clock.part("drawing"):
        write_demo_report(report, nuclei, digits, found, clock.seconds)
    figures = {
        "nuclei mask AP50": nuclei.metrics["mask"]["AP50"],
        "nuclei mask AP": nuclei.metrics["mask"]["AP"],
        "digits top1": digits.metrics["top1"],
        "scenes mask AP50": found.metrics["mask"]["AP50"],
        "scenes mask AP": found.metrics["mask"]["AP"],
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()},
    }
    write_json(out / "results.json", figures)
    return report, nuclei, digits, found


def _train_and_evaluate(name: str, folder: Path, epochs: int, clock: Clock, weights: str = "") -> Part:
    """Train the recipe of this name on FOLDER/data, from these weights, and evaluate it."""
    recipe = find_recipe(name)
    recipe = replace(recipe, model=replace(recipe.model, weights=weights))
    if epochs:
        recipe = replace(recipe, schedule=replace(recipe.schedule, epochs=epochs, warmup_epochs=epochs / 20))
    data, run, evaluation = folder / "data", folder / "run", folder / "evaluation"
    what = "training, continued from an earlier run" if (run / "last").exists() else "training"
    with clock.part(f"{folder.name}: {what}"):
        train_recipe(recipe, str(data), run, "auto")
    with clock.part(f"{folder.name}: evaluating"), progress_bar("") as bar:
        options = EvaluateOptions(run, str(data), "validation", evaluation, workers=0, on_progress=bar.show)
        metrics = evaluate_checkpoint(options)
    assert metrics is not None, "the demo is one process"
    return Part(recipe, folder, metrics)


def _held_out(images: int) -> int:
    return max(images // 20, 10)
