"""Real runs in processes of their own that are killed, and what is left of them at the end."""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from botformer.create.train_recipe import train_recipe
from botformer.data.synthetic.nuclei_crops import write_nuclei
from botformer.recipes import find_experiment
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Images, Model, Optimizer, Run, Schedule
from botformer.training.checkpoint import BEST, LAST, checkpoint_folder
from botformer.training.run_log import read_metrics
from tests.fork_server import start_process

STOPWATCH = ("images_per_s", "waited_s", "memory_mb")
Program = Callable[[Path, Path], None]
"""Trains on the data in a folder into another folder."""


def write_colours(data: Path) -> None:
    """Images of noise with a tint, of two classes; one may be told from the other."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 5)):
        for place, name in enumerate(("blue", "red")):
            folder = data / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 160, (40, 48, 3), dtype=np.uint8)
                pixels[..., 2 - 2 * place] += 60
                Image.fromarray(pixels).save(folder / f"{number}.png")


def classify(data: Path, out: Path, workers: int = 0) -> None:
    recipe = ClassificationRecipe(
        model=Model("botnet_nano", dropout=0.1),
        images=Images(size=32),
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, ema=0.9),
        schedule=Schedule(epochs=7, warmup_epochs=1),
        run=Run(batch_size=8, precision="float32", device="cpu", workers=workers, threads=1, evaluate_every=3, keep=3),
    )
    _train(recipe, data, out)


def classify_with_a_worker(data: Path, out: Path) -> None:
    classify(data, out, workers=1)


def detect(data: Path, out: Path) -> None:
    row = find_experiment("nuclei_mini").recipe
    assert isinstance(row, DetectionRecipe)
    run = replace(
        row.run,
        batch_size=2,
        max_steps=20,
        workers=1,
        threads=1,
        device="cpu",
        precision="float32",
        evaluate_every=0.3,
    )
    _train(replace(row, images=replace(row.images, size=64, test_size=128), run=run), data, out)


def _train(recipe: ClassificationRecipe | DetectionRecipe, data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    run = replace(recipe.run, checkpoint_every_steps=2, checkpoint_every_minutes=0)
    train_recipe(replace(recipe, run=run), str(data), out)


JOBS: dict[str, tuple[Callable[[Path], object], Program]] = {
    "classification": (write_colours, classify),
    "detection": (write_nuclei, detect),
}
"""Name -> what writes the data, and what trains on them."""


@dataclass
class Outcome:
    """What became of the runs."""

    seed: int
    kills: int = 0
    in_a_write: int = 0
    """Kills that left an unfinished checkpoint."""
    runs: int = 0
    """That came to their end, each in a folder of its own."""
    same: int = 0
    """Of these, ended with the bits of the undisturbed one."""
    restarts_that_failed: int = 0
    differences: list[str] = field(default_factory=list)


def start(program: Program, data: Path, out: Path) -> BaseProcess:
    return start_process(_quietly, program, data, out)


def _quietly(program: Program, data: Path, out: Path) -> None:
    os.setsid()  # with the processes that read its images it is a group of its own, as a batch system's job is
    os.dup2(os.open(out.parent / f"{out.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    program(data, out)


def run_and_kill(
    program: Program,
    data: Path,
    folder: Path,
    kills: int,
    in_a_write: int,
    seed: int,
    same: Callable[[Path], object],
    writing: Callable[[Path], set[str]],
) -> Outcome:
    """Kill runs of `program` in `folder` `kills` times, at least `in_a_write` of them while a checkpoint is written,
    restarting each, and let the last one end. `same` says of a run's folder all that must be equal; `writing` which
    checkpoints are being written there, or were when the run was killed."""
    began = time.monotonic()
    process = start(program, data, folder / "whole")
    process.join()
    assert process.exitcode == 0, (folder / "whole.log").read_text()
    length, expected = time.monotonic() - began, same(folder / "whole")
    moments, outcome = random.Random(seed), Outcome(seed)
    while True:
        out = folder / f"run-{outcome.runs}"
        before = writing(out)
        is_whole, began = not out.exists(), time.monotonic()
        process = start(program, data, out)
        kill = outcome.kills < kills
        if kill and kills - outcome.kills <= in_a_write - outcome.in_a_write:
            while process.is_alive() and writing(out) <= before:
                time.sleep(0.0002)
            time.sleep(moments.uniform(0, 0.004))
        elif kill:
            process.join(moments.uniform(0, length))
        if was_alive := kill and process.is_alive():
            process.kill()
        process.join()
        if was_alive and process.exitcode in (-9, 255):  # the fork server may not know how it ended
            outcome.kills += 1
            outcome.in_a_write += not writing(out) <= before
            continue
        if is_whole:  # a machine that is less busy than it was is faster
            length = min(length, time.monotonic() - began)
        if process.exitcode:
            outcome.restarts_that_failed += 1
            said = (folder / f"{out.name}.log").read_text()[-2000:]
            outcome.differences.append(f"{out.name} ended with {process.exitcode}: {said}")
        else:
            found = same(out)
            outcome.same += found == expected
            if found != expected:
                outcome.differences.append(f"{out.name}: {found} is not {expected}")
        outcome.runs += 1
        if outcome.kills == kills:
            return outcome


def bits(out: Path) -> dict[str, object]:
    """Of a run of ours: SHA-256 of each file of its last checkpoint, its pointers, and the journal without what a
    stopwatch says."""
    folder = checkpoint_folder(out)
    assert folder is not None
    found: dict[str, object] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    records = read_metrics(out / "metrics.jsonl")
    journal = json.dumps([{k: v for k, v in record.items() if k not in STOPWATCH} for record in records])
    found["metrics.jsonl"] = hashlib.sha256(journal.encode()).hexdigest()
    return found | {name: (out / name).read_text() for name in (LAST, BEST)}


def unfinished(out: Path) -> set[str]:
    """Of a run of ours: checkpoints that are being written, or were when it was killed."""
    try:
        return {name for name in os.listdir(out / "checkpoints") if name.endswith(".partial")}
    except OSError:
        return set()
