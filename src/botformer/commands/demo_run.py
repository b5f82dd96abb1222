"""What the demo does: data, training, evaluation and report, part by part."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from botformer.atomic_write import write_json
from botformer.commands.demo_first_look import draw_first_look
from botformer.commands.demo_report import Part, write_demo_report
from botformer.commands.demo_second_process import second_process
from botformer.commands.screen import progress_bar
from botformer.create.train_recipe import train_recipe
from botformer.data.synthetic.digit_scenes import write_digit_scenes
from botformer.data.synthetic.digits import write_digits
from botformer.data.synthetic.nuclei_crops import write_nuclei
from botformer.environment import cores
from botformer.evaluate.evaluate_checkpoint import evaluate_checkpoint
from botformer.evaluate.options import EvaluateOptions
from botformer.recipes import find_recipe
from botformer.terminal import screen

SCENES_PER_IMAGE = 0.055


class Clock:
    """How long each part took."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        screen(stderr=True).print(f"{name} ...")
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started

    @property
    def total(self) -> float:
        return time.perf_counter() - self.started


def run_demo(out: Path, images: int, epochs: int = 0) -> tuple[Path, Part, Part, Part]:
    """Data, training, evaluation and report, in OUT. Returns the report and nuclei, digits, scenes."""
    clock = Clock()
    with _beside(out, round(images * SCENES_PER_IMAGE), epochs) as next_result:
        _show_first_look(out / "first_look.png", clock)
        folder = out / "digits"
        # All data first: a missing package is noticed before anything is trained.
        with clock.part("digits: writing the images"), progress_bar("", images + _held_out(images)) as bar:
            write_digits(folder / "data", images, _held_out(images), on_image=bar.advance)
        next_result()
        digits = _train_and_evaluate("digits", folder, epochs, clock)
        found = _train_and_evaluate("digit_scenes", out / "scenes", epochs, clock, weights=str(digits.run))
        nuclei, seconds = next_result()
    clock.seconds |= seconds
    report = out / "report.html"
    with clock.part("drawing"):
        write_demo_report(report, nuclei, digits, found, clock.seconds, clock.total)
    figures = {
        "nuclei mask AP50": nuclei.metrics["mask"]["AP50"],
        "nuclei mask AP": nuclei.metrics["mask"]["AP"],
        "digits top1": digits.metrics["top1"],
        "scenes mask AP50": found.metrics["mask"]["AP50"],
        "scenes mask AP": found.metrics["mask"]["AP"],
        "seconds": {name: round(value, 1) for name, value in clock.seconds.items()} | {"total": round(clock.total, 1)},
    }
    write_json(out / "results.json", figures)
    return report, nuclei, digits, found


def _show_first_look(drawing: Path, clock: Clock) -> None:
    with clock.part("first look: nuclei, by the network that comes with botformer"):
        count = draw_first_look(drawing)
    screen().print(f"first look: {count} nuclei on a micrograph, outlined in {drawing}; now networks of your own:")


@contextmanager
def _beside(out: Path, scenes: int, epochs: int) -> Iterator[Callable[[], Any]]:
    """The nuclei in a process of their own. Its parts have one thread each, as those here: a core each. With a single
    core they take turns."""
    if cores() < 2:
        yield partial(next, _scenes_and_nuclei(out, scenes, epochs))
        return
    log = out / "nuclei" / "log.txt"
    screen(stderr=True).print(f"nuclei: beside the digits, in a second process; {log} has what it says")
    with second_process(_scenes_and_nuclei, out, scenes, epochs, log=log) as next_result:
        yield next_result


def _scenes_and_nuclei(out: Path, scenes: int, epochs: int) -> Iterator[Any]:
    """Yields once the images of nuclei and of scenes are written, and then the nuclei's part and its seconds."""
    clock = Clock()
    with clock.part("nuclei: writing the images"):
        write_nuclei(out / "nuclei" / "data")
    with clock.part("scenes: writing the images"), progress_bar("", scenes + _held_out(scenes)) as bar:
        write_digit_scenes(out / "scenes" / "data", scenes, _held_out(scenes), on_image=bar.advance)
    yield None
    nuclei = _train_and_evaluate("nuclei_mini", out / "nuclei", epochs, clock)
    yield nuclei, clock.seconds


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
