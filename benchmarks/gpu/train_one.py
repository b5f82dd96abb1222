"""One training in a process of its own, and how fast its loader and its steps are, each alone.

What takes seconds to import is imported in the functions: the process that starts this one needs none of it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.training_table import AnyRecipe
from botformer.atomic_write import write_json
from botformer.training.signals import stop_with_parent

if TYPE_CHECKING:
    from botformer.training.task import Batch, TrainBatches
    from botformer.training.train_step import TrainState

RATES = "rates.json"


def train_one(recipe: AnyRecipe, data: str, run: Path, log: Path, measure_s: float) -> None:
    """Train into the folder `run`, continuing what is there; then measure for about `measure_s` seconds each and write
    RUN/rates.json. 0 seconds: measure nothing. Everything printed goes to `log`; its last line is the error
    that ended the training; one while measuring stands in RUN/rates.json.

    Exits with 143 when SIGTERM stopped the training, after its checkpoint, and with 1 after any error. The end of the
    process that started this one is a SIGTERM too.
    """
    redirect(log)
    stop_with_parent()
    try:
        from botformer.create.train_recipe import train_recipe

        train_recipe(recipe, data, run)
    except Exception as error:
        traceback.print_exc()
        print(in_one_line(error), file=sys.stderr, flush=True)
        sys.exit(1)
    if measure_s and not (run / RATES).exists():
        try:
            measured = rates(recipe, data, measure_s)
        except Exception as error:  # the training is done all the same
            traceback.print_exc()
            measured = {"error": in_one_line(error)}
        write_json(run / RATES, measured)


def in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def redirect(log: Path) -> None:
    """Output of this process, of its libraries and of its workers goes to the end of the file."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


def rates(recipe: AnyRecipe, data: str, seconds: float) -> dict[str, Any]:
    """Images per second of the loader alone, and of training steps on a batch that stays on the device."""
    from accelerate.utils import send_to_device

    from botformer.create.train_recipe import make_parts
    from botformer.training.distributed import open_accelerator
    from botformer.training.train_step import TrainState

    accelerator = open_accelerator(recipe.run)
    parts = make_parts(recipe, data, accelerator)
    workers = recipe.run.workers
    loader = loader_rate(parts.train, workers, seconds)
    batch = next(parts.train.starting_at(0))
    on_device: Any = send_to_device(batch, accelerator.device)
    step = step_rate(TrainState(parts.task, recipe, accelerator), on_device, seconds)
    return {"workers": workers, "loader_images_per_s": round(loader, 1), "step_images_per_s": round(step, 1)}


def loader_rate(train: TrainBatches, workers: int, seconds: float) -> float:
    """Images per second. Whole rounds of the workers are counted, after what they prepared during their start."""
    batches = train.starting_at(0)
    round_ = max(1, workers)
    images = take(batches, 3 * round_)
    begun, images = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        images += take(batches, round_)
    return images / (time.perf_counter() - begun)


def take(batches: Iterator[Batch], count: int) -> int:
    """Images in the next batches."""
    from botformer.training.train_step import batch_length

    return sum(batch_length(next(batches)) for _ in range(count))


def step_rate(train_state: TrainState, batch: Batch, seconds: float) -> float:
    """Images per second. The learning rate is 0: the weights stay as they are."""
    import torch

    from botformer.training.train_step import batch_length

    device = train_state.accelerator.device

    def steps(count: int) -> None:
        for _ in range(count):
            train_state.step(batch, 0.0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    steps(3)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        steps(5)
        done += 5
    return done * batch_length(batch) / (time.perf_counter() - begun)
