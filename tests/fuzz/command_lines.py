"""Command lines as people and scripts get them wrong, run in this process; none of them computes for long."""

import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from botformer import cli
from botformer.errors import InputError
from tests.fuzz.mutations import HUGE, ODD_TEXTS, Random, damage_folder

LINES: tuple[str, ...] = (
    "--help",
    "--version",
    "models --sort parameters",
    "models --help",
    "data classes --fast --out page.html",
    "data scenes --out page.html",
    "data annotations --checkpoint networks/detector.safetensors",
    "predict images --checkpoint networks/classifier.safetensors --out found --draw 1 --query 0.5 0.5 --device cpu",
    "predict scenes/val/*.png scenes/val/1.png --checkpoint networks/detector.safetensors --out found --threshold 0.1"
    " --tile 64 --tta flip --batch-size 2",
    "predict scenes/val/1.png --checkpoint networks/detector.safetensors --attention --detection 0 --out found"
    " --annotations scenes/annotations/instances_val.json --max-megapixels 2",
    "predict - --checkpoint networks/classifier.safetensors --out found",
    "evaluate networks/classifier.safetensors --data classes --split validation --workers 0 --out measured",
    "evaluate run --data classes --split train --workers 0 --batch-size 2 --tta flip",
    "evaluate networks/detector.safetensors --data scenes --workers 0 --by licence --max-bad-records 3 --tile 64",
    "explain scenes/val/1.png --checkpoint networks/classifier.safetensors --pixel 3 4 --class cat --out page.html",
    "explain scenes/val/1.png --checkpoint networks/detector.safetensors --detection 0",
    "export networks/classifier.safetensors --format onnx --out graph --size 32 --batch 1 --data images",
    "export run --format torch --precision float16",
    "convert predictions/detector --to label_studio --out tasks.json --threshold 0.2 --shapes polygon --at /data",
    "convert predictions/classifier --to label_studio",
    "convert predictions/detector --to coco",
    "push run owner/name --licence apache-2.0 --data mine --folder card",
    "push networks/classifier.safetensors owner/name --private",
    "report run --data classes",
    "demo --out demo --images 1000 --epochs 1",
    "benchmark attention --quick --rounds 1 --minutes 1 --only 7x7 --out results",
    "train",
    "train classify --data classes --minutes 1 --out fresh --run.workers 0",
    "train segment --data scenes --model.weights imagenet --out fresh",
    "train auto --data annotations --minutes 2",
    "train classify --data classes --out run --run.workers 0 --run.device cpu",
    "train cifar10 --data classes --out fresh --resume never --model.name botnet_nano --images.size 16"
    " --run.batch-size 2 --run.workers 0 --run.max-steps 1 --run.device cpu --run.precision float32 --run.threads 1"
    " --optimizer.ema 0.9 --schedule.epochs 1 --images.hflip --schedule.milestones 0.5 0.8",
    "train nuclei --data scenes --out fresh --model.name botnet_nano --images.size 64 --run.batch-size 2"
    " --run.workers 0 --run.max-steps 1 --run.device cpu --run.precision float32 --run.threads 1 --detector mask_rcnn"
    " --settings.anchor-sizes 8 16 32 64 --settings.levels p2 p3 p4 p5 --images.scale-jitter 0.8 1.2",
)  # fmt: skip

_NUMBERS = ("0", "1", "2", "0.5", "-0.5", "1e-320", "inf", *map(str, HUGE))
# A system hands over no text with NUL, nor a surrogate that stands for no byte.
_TEXTS = tuple(text for text in ODD_TEXTS if text not in ("\0", "\ud800"))
_VALUES = (*_TEXTS, *_NUMBERS, "cpu", "cuda", "mps", "all", "auto")


def run_command_line(rng: Random, valid: Path) -> int:
    """The exit status of one."""
    line = mutated_line(rng, rng.choice(LINES).split())
    for name in ("images", "classes", "scenes", "networks", "run", "predictions"):
        if any(name in argument for argument in line):
            shutil.copytree(valid / name, name, symlinks=True)
    if any("annotations" in argument for argument in line):
        shutil.copytree(rng.choice(sorted((valid / "annotations").iterdir())), "annotations", symlinks=True)
    if rng.random() < 0.3:
        damage_folder(rng, Path())
    sys.stdin = io.TextIOWrapper(io.BytesIO(rng.choice((b"", b"images/rgb.png\n", b"\0\1\2", b"\xff\xd8\xff" * 9))))
    print(f"command line: {line!r}")
    try:
        return cli.main(line)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1


def mutated_line(rng: Random, line: list[str]) -> list[str]:
    """One to three faults, or none."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        rng.choice(_FAULTS)(rng, line)
    return line


def _other_value(rng: Random, line: list[str]) -> None:
    places = [place for place, word in enumerate(line) if place and not word.startswith("--")]
    if places:
        line[rng.choice(places)] = rng.choice(_VALUES)


def _gone(rng: Random, line: list[str]) -> None:
    if line:
        del line[rng.randrange(len(line))]


def _flag_of_another(rng: Random, line: list[str]) -> None:
    other = rng.choice(LINES).split()
    flags = [place for place, word in enumerate(other) if word.startswith("--")]
    if flags:
        at = rng.choice(flags)
        line += other[at : at + rng.choice((1, 2))]


def _unknown(rng: Random, line: list[str]) -> None:
    line.insert(rng.randrange(len(line) + 1), rng.choice(("--nothing", "-x", "--run.nothing=1", "--=", *_VALUES)))


def _joined(rng: Random, line: list[str]) -> None:
    places = [place for place, word in enumerate(line[:-1]) if word.startswith("--")]
    if places:
        at = rng.choice(places)
        line[at : at + 2] = [f"{line[at]}={rng.choice((line[at + 1], *_VALUES))}"]


def _misspelt(rng: Random, line: list[str]) -> None:
    if line:
        at = rng.randrange(len(line))
        word = line[at]
        place = rng.randrange(len(word) + 1)
        line[at] = rng.choice((word[:place] + word[place + 1 :], word[:place] + "x" + word[place:], word.upper()))


def _shuffled(rng: Random, line: list[str]) -> None:
    rest = line[1:]
    rng.shuffle(rest)
    line[1:] = rest


def _twice(rng: Random, line: list[str]) -> None:
    if line:
        at = rng.randrange(len(line))
        line[at:at] = line[at : at + rng.choice((1, 2))] * rng.choice((1, 20))


_FAULTS: tuple[Callable[[Random, list[str]], None], ...] = (
    _other_value, _other_value, _other_value, _gone, _flag_of_another, _unknown, _joined, _misspelt, _shuffled, _twice,
)  # fmt: skip

_MOST_PIXELS = 2 * 96**2
"""Of a batch that is really trained on."""


def stop_before_long_work() -> None:
    """In this process commands check their input and stop where they would compute for long."""
    import botformer.benchmark.run_suite
    import botformer.commands.demo
    import botformer.create.train_recipe
    import botformer.deploy.export
    import botformer.hub.publish
    import botformer.planning.plan

    fit: Any = botformer.create.train_recipe.fit

    def one_step(task: Any, train: Any, evaluation: Any, recipe: Any, *more: Any) -> Any:
        if recipe.run.batch_size * recipe.images.size**2 > _MOST_PIXELS or "nano" not in recipe.model.name:
            _stop()
        return fit(task, train, evaluation, replace(recipe, run=replace(recipe.run, max_steps=1)), *more)

    botformer.create.train_recipe.fit = one_step
    botformer.commands.demo.demo = _stop
    botformer.benchmark.run_suite.run_suite = _stop
    botformer.deploy.export.export = _stop
    botformer.planning.plan.make_plan_for = _stop
    botformer.hub.publish.upload_folder = _stop


def _stop(*arguments: Any, **options: Any) -> Any:
    raise InputError("the fuzzer stops here, where work begins")
