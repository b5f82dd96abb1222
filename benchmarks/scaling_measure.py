"""What the model of scaling.py is given and held to: parts of a training, and trainings, timed on this machine."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import socket
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from loader import Case, jpeg_files, write_files
from PIL import Image
from scaling import buckets, gradient_bytes
from scaling_rows import (
    BANDWIDTH,
    CHECKPOINT,
    CHECKPOINT_MB,
    LATENCY,
    LOADER,
    NETWORKS,
    PARAMETERS,
    PROCESSES,
    READING,
    RUN,
    STEP,
    STEPS,
    Row,
    loader_label,
    median_rows,
    paper_recipes,
    with_predictions,
)
from torch import nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from botformer.benchmark.receipt import write_receipt
from botformer.create import create_classification_task
from botformer.data.classification.batches import training_batches
from botformer.data.classification.dataset import open_classification_dataset
from botformer.data.detection.batches import detection_training_batches
from botformer.data.detection.coco_reader import coco_dataset
from botformer.environment import cores
from botformer.recipes import find_recipe
from botformer.recipes.schema import ClassificationRecipe, DetectionImages, Images, Recipe
from botformer.seeding import seed_all
from botformer.training.checkpoint import State, step_of, write_checkpoint
from botformer.training.distributed import Accelerator, open_accelerator
from botformer.training.train_step import StepInfo, StepReport, TrainState, Wishes

WARM_UP, TURNS = 2, 3
"""Steps before anything is timed; how often parts and run take turns while their processes live."""
FILES = {"classification": Case((500, 400), 256, "training", 32), "detection": Case((640, 480), 64, "detection", 4)}
"""Photographs of the usual size of ImageNet's and of COCO's."""
OBJECTS = 7  # per image of COCO
LOADER_S = 3.0
RATE = 1e-6
"""Learning rate: weights stay what they were, and so does the time of a step."""
NOTES = (
    "Medians of {rounds} round(s). Runs: {steps} steps and a checkpoint, with images from files, `predicted` from the "
    "parts that were timed in turns with them, and `measured`; error: predicted / measured - 1. Parts: the step and "
    "the reading of a batch by the slowest of as many processes as have a core of their own, side by side, in "
    "DistributedDataParallel but exchanging with nobody; latency and bandwidth of gloo's all-reduce among all "
    "processes, in buckets of 25 MiB; a checkpoint, until it is on the disk. Each process has one thread and reads its "
    "own images. Loader: images per second of one worker process, of photographs of 500x400 px (ImageNet) and of "
    "640x480 px with {objects} polygons (COCO)."
)


def write_measurement(path: Path, rounds: int) -> Path:
    """Measure, and write the receipt."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: write_files(Path(temporary), case) for name, case in FILES.items()}
        for number in range(rounds):
            for recipe, _ in NETWORKS:
                for processes in PROCESSES:
                    rows += in_processes(processes, recipe, folders["classification"])
            print(f"round {number + 1} of {rounds}", flush=True)
        rows = with_predictions(median_rows(rows), cores())
        rows += loader_rows(folders)
    notes = NOTES.format(rounds=rounds, steps=STEPS, objects=OBJECTS)
    command = f"python benchmarks/scaling.py measure --rounds {rounds}"
    return write_receipt(path, "Scaling: parts of a training, and runs of 1, 2, 4 processes", command, rows, 0, notes)


# Processes


def in_processes(processes: int, recipe: str, folder: Path) -> list[Row]:
    """The rows of `processes` processes on this machine; those of the first."""
    with socket() as free, tempfile.TemporaryDirectory() as out:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        spawn(work_as, (processes, port, recipe, folder, Path(out)), nprocs=processes)
        rows = json.loads((Path(out) / "rows.json").read_text(encoding="utf-8"))
    for row in rows:
        print(row, flush=True)
    return rows


def work_as(rank: int, processes: int, port: int, recipe_name: str, folder: Path, out: Path) -> None:
    """One process: its parts alone, side by side with the others, then the run together."""
    if processes > 1:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1"}
    batch = dict(NETWORKS)[recipe_name]
    recipe = find_recipe(recipe_name)
    assert isinstance(recipe, ClassificationRecipe)
    run = replace(recipe.run, batch_size=batch * processes, threads=1, precision="float32", device="cpu", workers=0)
    recipe = replace(recipe, run=run)
    accelerator = open_accelerator(run)
    own_groups = [dist.new_group([other]) for other in range(processes)] if processes > 1 else [None]
    alone = _Alone(accelerator, own_groups[rank])
    seed_all(0, 0, rank)
    batches = _batches(folder, recipe, rank, processes)
    state, state_alone = _train_state(recipe, accelerator), _train_state(recipe, alone)
    parameters = sum(p.numel() for p in state.task.model.parameters() if p.requires_grad)
    beside = rank < min(processes, cores())
    rows: list[Row] = [{"what": PARAMETERS, "measured": parameters}]
    for turn in range(TURNS):
        figures = _alone_s(accelerator, state_alone, batches if beside else None)
        if processes > 1:
            figures |= _link(accelerator, gradient_bytes(parameters))
        figures[RUN] = _run_s(state, recipe, batches, out / "together" / f"step-{turn:08d}")
        figures[CHECKPOINT] = 0.0
        if rank == 0:
            figures[CHECKPOINT] = _checkpoint_s(state, out / "alone" / f"step-{turn:08d}")
        accelerator.wait_for_everyone()
        rows += [{"what": what, "measured": value} for what, value in figures.items()]
    if rank == 0:
        size = sum(file.stat().st_size for file in (out / "alone" / "step-00000000").glob("*.safetensors"))
        rows.append({"what": CHECKPOINT_MB, "measured": size / 1e6})
        labels = {"recipe": recipe_name, "processes": processes}
        rows = [{"what": row["what"], **labels, "measured": row["measured"]} for row in rows]
        (out / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    accelerator.wait_for_everyone()
    if dist.is_initialized():
        dist.destroy_process_group()


class _Alone(Accelerator):
    """As if this process had no others, but for what DistributedDataParallel does besides exchanging."""

    def __init__(self, accelerator: Accelerator, own_group: Any) -> None:
        self.__dict__ |= vars(accelerator)
        self._own_group = own_group

    def distribute(self, module: nn.Module, has_unused_parameters: bool) -> nn.Module:
        if self._own_group is None:
            return module
        unused = has_unused_parameters
        return DistributedDataParallel(module, process_group=self._own_group, find_unused_parameters=unused)

    def fractions(self, images: list[int]) -> list[float]:
        return [count / sum(images) for count in images]


def _batches(folder: Path, recipe: ClassificationRecipe, rank: int, processes: int) -> Iterator[Any]:
    dataset = open_classification_dataset(str(folder), "")
    batches = training_batches(dataset, recipe.images, recipe.run.batch_size, 0, 0, rank, processes)
    return iter(batches.starting_at(0))


def _train_state(recipe: ClassificationRecipe, accelerator: Accelerator) -> TrainState:
    task = create_classification_task(recipe, [str(number) for number in range(10)])
    return TrainState(task, recipe, accelerator)


def _alone_s(accelerator: Accelerator, state: TrainState, batches: Iterator[Any] | None) -> dict[str, float]:
    """Milliseconds of reading a batch and of a step: in each step those of the process that takes longest, for which
    the others would wait. Processes without batches only wait."""
    taken = torch.zeros(STEPS, 2, dtype=torch.float64)
    for _ in range(WARM_UP if batches else 0):
        state.step(next(batches), RATE)
    accelerator.wait_for_everyone()
    for times in taken if batches else ():
        started = perf_counter()
        batch = next(batches)
        read = perf_counter()
        state.step(batch, RATE)
        times[:] = torch.tensor([read - started, perf_counter() - read])
    accelerator.wait_for_everyone()
    everyone = [taken]
    if dist.is_initialized():
        everyone = [torch.zeros_like(taken) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, taken)
    of_all = torch.stack(everyone)  # (processes, steps, 2)
    slowest = of_all[of_all.sum(2).argmax(0), torch.arange(STEPS)].mean(0) * 1e3
    return {READING: slowest[0].item(), STEP: slowest[1].item()}


def _seconds_per_call(accelerator: Accelerator, call: Callable[[], Any], calls: int) -> float:
    """All processes begin together."""
    for _ in range(WARM_UP):
        call()
    accelerator.wait_for_everyone()
    started = perf_counter()
    for _ in range(calls):
        call()
    seconds = perf_counter() - started
    accelerator.wait_for_everyone()
    return seconds / calls


def _link(accelerator: Accelerator, gradients: int) -> dict[str, float]:
    """Latency from four bytes, bandwidth from as many bytes as there are gradients, in as many buckets."""
    processes, count = accelerator.num_processes, buckets(gradients)
    parts = [torch.zeros(gradients // 4 // count) for _ in range(count)]
    small = torch.zeros(1)

    def exchange() -> None:
        for work in [dist.all_reduce(part, async_op=True) for part in parts]:
            assert work is not None
            work.wait()

    turns = 2 * (processes - 1)
    latency = _seconds_per_call(accelerator, lambda: dist.all_reduce(small), 50) / turns
    sending = _seconds_per_call(accelerator, exchange, STEPS) - turns * latency * count
    return {LATENCY: latency * 1e6, BANDWIDTH: turns / processes * gradients / sending / 1e6}


def _run_s(state: TrainState, recipe: Recipe, batches: Iterator[Any], checkpoint: Path) -> float:
    """Seconds of steps with images from files, and of a checkpoint, after a few steps that do not count."""

    def step() -> None:
        batch = next(batches)
        losses = state.step(batch, RATE)
        info = StepInfo(0, RATE, recipe.run.batch_size, 0.0, [])
        assert StepReport(state.accelerator, info, losses, Wishes()).read().finite

    for _ in range(WARM_UP):
        step()
    state.accelerator.wait_for_everyone()
    started = perf_counter()
    for _ in range(STEPS):
        step()
    if state.accelerator.is_main_process:
        _checkpoint_s(state, checkpoint)
    state.accelerator.wait_for_everyone()
    return perf_counter() - started


def _checkpoint_s(train_state: TrainState, folder: Path) -> float:
    """Seconds; a folder `step-NNNNNNNN`."""
    started = perf_counter()
    state = State(step_of(folder) or 0, {}, 0, 0, None, list(train_state.set_names), {}, {}, {})
    write_checkpoint(folder, state, train_state.tensors())
    return perf_counter() - started


# Loader


def loader_rows(folders: dict[str, Path]) -> list[Row]:
    """Of one worker process, for every way in which the paper's recipes prepare images."""
    rows: dict[str, Row] = {}
    for experiment in paper_recipes():
        images = experiment.recipe.images
        label = loader_label(images)
        if label not in rows:
            rate = loader_per_s(
                images, folders["detection" if isinstance(images, DetectionImages) else "classification"]
            )
            rows[label] = {"what": LOADER, "images": label, "measured": round(rate, 1)}
            print(rows[label], flush=True)
    return list(rows.values())


def loader_per_s(images: Images | DetectionImages, folder: Path) -> float:
    """Images per second of a worker process, once it has started, with nobody else at work."""
    if isinstance(images, DetectionImages):
        batch = FILES["detection"].batch
        batches = detection_training_batches(outlined(folder), images, batch, seed=0, workers=1).starting_at(0)
    else:
        batch = FILES["classification"].batch
        dataset = open_classification_dataset(str(folder), "")
        batches = training_batches(dataset, images, batch, seed=0, workers=1).starting_at(0)
    for _ in range(4):  # as many as may have been made before anybody asked
        next(batches)
    started, done = perf_counter(), 0
    while perf_counter() - started < LOADER_S:
        next(batches)
        done += batch
    return done / (perf_counter() - started)


def outlined(folder: Path) -> Any:
    """The images of a folder as a detection data set; objects are triangles that fill their boxes."""
    images, annotations = [], []
    for number, file in enumerate(jpeg_files(folder)):
        with Image.open(file) as image:
            width, height = image.size
        images.append({"id": number, "file_name": str(file.relative_to(folder)), "width": width, "height": height})
        for place in range(OBJECTS):
            left, top = place / OBJECTS * 0.6 * width, place / OBJECTS * 0.6 * height
            right, bottom = left + 0.3 * width, top + 0.3 * height
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top) / 2,
                    "segmentation": [[left, bottom, (left + right) / 2, top, right, bottom]],
                }
            )  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    return coco_dataset(content, str(folder), folder)
