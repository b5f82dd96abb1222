"""How fast this machine trains a candidate on these very images: a few real steps of real batches."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from botformer.create.train_recipe import Parts, parts_of
from botformer.data.classification.dataset import ClassificationDataset
from botformer.data.detection.dataset import DetectionDataset
from botformer.environment import cores
from botformer.planning.budget import Speed, split_cores
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe
from botformer.training.distributed import Accelerator, open_accelerator
from botformer.training.task import Batch
from botformer.training.train_step import TrainState, batch_length

AnyRecipe = ClassificationRecipe | DetectionRecipe
AnyDataset = ClassificationDataset | DetectionDataset

_FEW_IMAGES, _FEW_PIXELS = 8, 8 * 224**2
"""Of a batch on a CPU, where a larger one is not faster per image."""
_FALSE_POSITIVES = 2.0
"""Detections of a trained detector per object, about: scores as low as 0.05 are kept."""
_STARTING_S = 4.0
"""Workers until their first batch, beside what is timed."""


@dataclass(frozen=True)
class Timed:
    """A candidate as this machine runs it."""

    recipe: AnyRecipe
    """With a batch that fits into memory, threads and workers."""
    speed: Speed
    step_s: float
    """Of the network, per image."""
    read_s: float
    """Of one process that reads, per image."""
    evaluate_s: float
    """Of the network in evaluation, per image."""


class StepTimer:
    """Times candidates on the data that they would be trained on.

    Args:
        fixed: fields that the user has set, such as "run.threads"; they are not changed.
    """

    def __init__(
        self,
        train: AnyDataset,
        validation: AnyDataset,
        fixed: set[str],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._train, self._validation, self._fixed, self._clock = train, validation, fixed, clock
        self._gain: float | None = None
        """How much faster the first candidate was on all cores than on one; None: not known yet."""

    def time(self, recipe: AnyRecipe, seconds: float) -> Timed:
        """Some `seconds` of steps. A batch that does not fit into a GPU is halved until it does."""
        with _undisturbed():
            while True:
                try:
                    return self._timed(recipe, seconds)
                except torch.cuda.OutOfMemoryError:
                    if recipe.run.batch_size == 1 or "run.batch_size" in self._fixed:
                        raise
                    torch.cuda.empty_cache()
                    recipe = replace(recipe, run=replace(recipe.run, batch_size=recipe.run.batch_size // 2))

    def _timed(self, recipe: AnyRecipe, seconds: float) -> Timed:
        begin = self._clock()
        on_cpu = open_accelerator(replace(recipe.run, threads=0)).device.type == "cpu"
        few = max(_FEW_IMAGES, _FEW_PIXELS // recipe.images.size**2)
        at_once = min(recipe.run.batch_size, few) if on_cpu else recipe.run.batch_size
        accumulation = 1 if on_cpu else recipe.run.accumulation
        run = replace(recipe.run, batch_size=at_once, workers=0, threads=0, accumulation=accumulation)
        accelerator = open_accelerator(run)
        trial: Any = replace(_with_as_many_detections(recipe, self._validation), run=run)
        parts = parts_of(trial, self._train, self._validation, accelerator)
        state = TrainState(parts.task, trial, accelerator, parts.loaded)
        create_s = self._clock() - begin

        batches = parts.train.starting_at(0)
        begin = self._clock()
        batch = next(batches)
        read_s = (self._clock() - begin) / batch_length(batch)
        del batches

        def step() -> None:
            losses = state.step(batch, 0.0)
            float(sum(losses.values()))  # waits for the device

        images = batch_length(batch)
        if on_cpu:
            threads, workers, step_s, image_s = self._on_cores(step, images, read_s, seconds)
        else:
            step()  # compiles, and touches the memory
            threads, step_s = 0, self._median(step, seconds) / images
            workers = max(1, min(8, cores() - 1, math.ceil(read_s / step_s)))
            image_s = max(step_s, read_s / workers)
        if threads:
            torch.set_num_threads(threads)
        evaluate_s = self._evaluation(parts, accelerator)
        chosen = {"threads": threads, "workers": workers, "precision": accelerator.precision}
        free = {name: value for name, value in chosen.items() if f"run.{name}" not in self._fixed}
        fitted: Any = replace(recipe, run=replace(recipe.run, **free))
        speed = Speed(image_s, max(evaluate_s, read_s / max(workers, 1)), create_s + _STARTING_S)
        return Timed(fitted, speed, step_s, read_s, evaluate_s)

    def _on_cores(
        self, step: Callable[[], None], images: int, read_s: float, seconds: float
    ) -> tuple[int, int, float, float]:
        """Threads, workers, seconds per image of the network, and of both together."""
        count = cores()
        on_all = self._gain is not None and self._gain > 1
        torch.set_num_threads(count if on_all else 1)
        step()  # compiles, and touches the memory
        step_s = self._median(step, seconds) / images
        if self._gain is None:
            self._gain = self._gain_of_all(step, step_s * images, seconds) if count > 1 else 1.0
        one_s, all_s = (self._gain * step_s, step_s) if on_all else (step_s, step_s / self._gain)
        threads, workers, image_s = split_cores(one_s, all_s, read_s, count)
        return threads, workers, all_s if threads == count else one_s, image_s

    def _gain_of_all(self, step: Callable[[], None], one_s: float, seconds: float) -> float:
        """How much faster a step is on all cores than the `one_s` on one of them."""
        torch.set_num_threads(cores())
        begin = self._clock()
        step()
        first_s = self._clock() - begin
        # Threads that wait for each other on a busy machine may take many times as long: once is enough to see that.
        return one_s / (first_s if first_s > 1.5 * one_s else self._median(step, seconds))

    def _evaluation(self, parts: Parts, accelerator: Accelerator) -> float:
        """Seconds of the network alone, per image."""
        assert isinstance(parts.task, nn.Module)
        batch = next(iter(parts.evaluation))
        with _evaluating(parts.task), accelerator.autocast():
            on_device: Any = send_to_device(batch, accelerator.device)

            def predict() -> None:
                parts.task.predict(on_device)
                _wait(accelerator)

            predict()  # compiles, and touches the memory
            return self._median(predict, 0.0) / len(batch["files"])  # an image in tiles is one of several canvases

    def _median(self, step: Callable[[], None], seconds: float) -> float:
        """Of the steps of so many seconds, at least two."""
        taken: list[float] = []
        end = self._clock() + seconds
        while len(taken) < 2 or self._clock() < end:
            begin = self._clock()
            step()
            taken.append(self._clock() - begin)
        return sorted(taken)[(len(taken) - 1) // 2]


def _with_as_many_detections(recipe: AnyRecipe, dataset: AnyDataset) -> AnyRecipe:
    """An untrained detector is sure of nothing and finds as many objects as it may: no more than there are."""
    if not isinstance(recipe, DetectionRecipe) or not isinstance(dataset, DetectionDataset):
        return recipe
    per_image = math.ceil(_FALSE_POSITIVES * dataset.objects / max(1, len(dataset)))
    settings = recipe.settings
    return replace(recipe, settings=replace(settings, max_detections=max(1, min(per_image, settings.max_detections))))


def time_with_loader(timed: Timed, train: AnyDataset, validation: AnyDataset, seconds: float) -> Timed:
    """The chosen candidate as it will run, with its workers: whatever is slower of reading and computing counts."""
    with _undisturbed():
        accelerator = open_accelerator(timed.recipe.run)
        parts = parts_of(timed.recipe, train, validation, accelerator)
        state = TrainState(parts.task, timed.recipe, accelerator, parts.loaded)
        batches = parts.train.starting_at(0)
        state.step(next(batches), 0.0)
        images, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds or images < 2 * timed.recipe.run.batch_size:
            batch: Batch = next(batches)
            losses = state.step(batch, 0.0)
            float(sum(losses.values()))
            images += batch_length(batch)
        image_s = (time.perf_counter() - begin) / images
        # The first batches were read while the first step compiled: they came faster than others will.
        image_s = max(image_s, timed.read_s / max(timed.recipe.run.workers, 1))
        return replace(timed, speed=replace(timed.speed, train_s=image_s))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is said of data and weights is said when training begins; threads are what they were afterwards."""
    threads = torch.get_num_threads()
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        torch.set_num_threads(threads)


@contextmanager
def _evaluating(task: nn.Module) -> Iterator[None]:
    task.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        task.train()


def _wait(accelerator: Accelerator) -> None:
    if accelerator.device.type != "cpu":
        torch.accelerator.synchronize()
