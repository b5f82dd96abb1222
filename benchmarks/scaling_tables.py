"""The tables of docs/scaling.md: the paper's recipes on GPUs, from receipts and the model of scaling.py.

A GPU's step that no receipt has stays empty, and so does what follows from it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from scaling import (
    Link,
    Step,
    all_reduce_s,
    buckets,
    checkpoint_bytes,
    gradient_bytes,
    run_s,
    step_on_gpus,
)
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
    Row,
    is_of,
    loader_label,
    paper_recipes,
)

from botformer.create.from_recipe import classification_task, detection_task
from botformer.recipes.experiment import Experiment
from botformer.recipes.schema import ClassificationRecipe, DetectionRecipe, Model, Optimizer

RESULTS = Path(__file__).parents[1] / "results"
Recipe = ClassificationRecipe | DetectionRecipe
Table = tuple[list[str], list[list[str]]]
"""Head and lines."""

GPUS = (1, 8, 64, 512)
GPUS_PER_MACHINE = 8
PRICE = 2.50
NVLINK, FAST, SLOW = Link(450e9), Link(400e9 / 8), Link(100e9 / 8)
"""Assumed: of one GPU within a machine; between machines, 400 and 100 Gb/s per GPU. Latency is left out."""
_LINKS = {NVLINK: "NVLink", FAST: "400 Gb/s", SLOW: "100 Gb/s"}
IMAGES = {ClassificationRecipe: 1_281_167, DetectionRecipe: 118_287}
"""Of ImageNet and of COCO train2017."""
CLASSES = {ClassificationRecipe: 1000, DetectionRecipe: 80}
MOMENTS = {"sgd": 1, "momentum": 1, "adamw": 2}
BULK_CORES = (1, 16, 1024)
BULK_IMAGES = {"1 million": 10**6, "1 billion": 10**9}


@cache
def receipt(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


# What is known of a recipe


@dataclass(frozen=True)
class Pass:
    """A forward and a backward pass and a step of the optimiser, as measured on one GPU."""

    images: int
    seconds: float
    receipt: str

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds


def measured_pass(recipe: Recipe) -> Pass | None:
    """None: no receipt has this network at this size. What its dropout and moving average cost is not in the figures
    either."""
    model, px, name = recipe.model, recipe.images.size, recipe.model.name
    if model.position != Model().position or model.gradient_checkpointing:
        return None
    if isinstance(recipe, DetectionRecipe):
        wanted = {"detection_gpu": {"px": px, "implementation": f"Mask R-CNN, {name}"}}
    else:
        ours = name if name.startswith("resnet") else f"{name}, ours"
        wanted = {
            "model_gpu": {"px": px, "implementation": ours},
            "headline_gpu": {"implementation": f"{name}, {px} px"},
        }
    for source, labels in wanted.items():
        for row in receipt(source)["figures"]:
            if "ms" in row and (labels | {"mode": "training step"}).items() <= row.items():
                return Pass(row["batch"], row["ms"] / 1e3, source)
    return None


@dataclass(frozen=True)
class Size:
    """Of a network, counted on a copy that has no memory."""

    parameters: int
    """Those that are trained."""
    values: int
    """Of its state dict."""

    @property
    def gradients(self) -> int:
        return gradient_bytes(self.parameters)

    def checkpoint(self, optimizer: Optimizer) -> int:
        return checkpoint_bytes(self.parameters, self.values, MOMENTS[optimizer.name], optimizer.ema > 0)


def size_of(recipe: Recipe) -> Size:
    images = type(recipe.images)(size=recipe.images.size)
    if isinstance(recipe, DetectionRecipe):
        return _counted(DetectionRecipe(model=recipe.model, images=images, settings=recipe.settings))
    return _counted(ClassificationRecipe(model=recipe.model, images=images))


@cache
def _counted(recipe: Recipe) -> Size:
    """Of a recipe that says nothing but what the network is."""
    names = [str(number) for number in range(CLASSES[type(recipe)])]
    with torch.device("meta"):
        if isinstance(recipe, DetectionRecipe):
            task: Any = detection_task(recipe, list(enumerate(names, 1)), (), (), {})
        else:
            task = classification_task(recipe, names, {})
    trained = sum(parameter.numel() for parameter in task.model.parameters() if parameter.requires_grad)
    return Size(trained, sum(tensor.numel() for tensor in task.model.state_dict().values()))


class Measured:
    """What the receipts say of machines."""

    def __init__(self) -> None:
        self.rows: list[Row] = receipt("scaling_cpu")["figures"]
        self.gpu: str = receipt("model_gpu")["hardware"]["gpu"]
        self.cores_per_gpu: int = receipt("model_gpu")["hardware"]["cores"]

    def part(self, what: str, recipe: str, processes: int) -> float | None:
        return next((r["measured"] for r in self.rows if r["what"] == what and is_of(r, recipe, processes)), None)

    @property
    def disk_bytes_per_s(self) -> float:
        """Of a checkpoint of the larger network, by one process."""
        size, seconds = (self.part(what, NETWORKS[-1][0], 1) for what in (CHECKPOINT_MB, CHECKPOINT))
        assert size
        assert seconds
        return 1e6 * size / seconds

    def loader_per_s(self, recipe: Recipe) -> float:
        """Images per second of one core."""
        label = loader_label(recipe.images)
        return next(r["measured"] for r in self.rows if r["what"] == LOADER and r["images"] == label)


# A recipe on GPUs


@dataclass(frozen=True)
class Training:
    """A recipe on a number of GPUs."""

    step: Step
    batch: int
    """Images per step: the recipe's, or more where that would leave a GPU fewer than were measured."""
    steps: int
    checkpoints: int


def training_on(recipe: Recipe, one: Pass, size: Size, gpus: int, cores_loader_per_s: float) -> Training:
    """Every GPU computes as many images at once as were measured, in as many passes as the recipe's batch needs.

    Args:
        cores_loader_per_s: images per second of all the cores of a GPU.
    """
    passes = max(1, recipe.run.batch_size // (gpus * one.images))
    batch = passes * gpus * one.images
    link = NVLINK if gpus <= GPUS_PER_MACHINE else FAST
    step = step_on_gpus(one.seconds, one.images, passes, size.gradients, gpus, link, cores_loader_per_s)
    epochs = recipe.schedule.epochs
    steps = round(epochs * (IMAGES[type(recipe)] // batch))
    return Training(step, batch, steps, round(epochs / recipe.run.checkpoint_every))


def trainings(experiment: Experiment, measured: Measured) -> Iterator[tuple[int, Training]]:
    """(GPUs, training); nothing where the step was not measured."""
    recipe = experiment.recipe
    one = measured_pass(recipe)
    if one:
        size, loader = size_of(recipe), measured.cores_per_gpu * measured.loader_per_s(recipe)
        for gpus in GPUS:
            yield gpus, training_on(recipe, one, size, gpus, loader)


# Tables


def check_table() -> Table:
    measured = Measured()
    head = ["network", "processes", "predicted: s", "measured: s", "predicted / measured - 1"]
    return head, [
        [
            row["recipe"],
            str(row["processes"]),
            f"{row['predicted']:.2f}",
            f"{row['measured']:.2f}",
            f"{row['error']:+.1%}",
        ]
        for row in measured.rows
        if row["what"] == RUN
    ]


def parts_table() -> Table:
    measured = Measured()
    parts = (READING, STEP, LATENCY, BANDWIDTH, CHECKPOINT)
    lines = []
    for recipe, batch in NETWORKS:
        gradients = gradient_bytes(int(measured.part(PARAMETERS, recipe, 1) or 0))
        for processes in PROCESSES:
            figures = (measured.part(part, recipe, processes) for part in parts)
            cells = ["" if figure is None else _figure(figure) for figure in figures]
            lines.append([recipe, str(processes), str(batch), f"{gradients / 1e6:.1f}", *cells])
    names = [part.removeprefix("part: ").replace(", ", ": ") for part in parts]
    return ["network", "processes", "images per process", "gradients: MB", *names], lines


def hours_table() -> Table:
    measured = Measured()
    lines = []
    for experiment in paper_recipes():
        recipe = experiment.recipe
        checkpoint_s = size_of(recipe).checkpoint(recipe.optimizer) / measured.disk_bytes_per_s
        hours, costs, names = dict.fromkeys(GPUS, ""), dict.fromkeys(GPUS, ""), []
        for gpus, training in trainings(experiment, measured):
            taken = run_s(training.step, training.steps, training.checkpoints, checkpoint_s) / 3600
            grown = training.batch > recipe.run.batch_size
            hours[gpus] = f"{_figure(taken)}{f' (batch {training.batch:,})' if grown else ''}"
            costs[gpus] = f"{taken * gpus * PRICE:,.0f}"
            names.append(training.step.bottleneck)
        lines.append(
            [experiment.name, f"{recipe.run.batch_size:,}", *hours.values(), *costs.values(), _bottleneck(names)]
        )
    head = ["recipe", "batch", *(f"{gpus} GPU{'s' * (gpus > 1)}: hours" for gpus in GPUS)]
    return [*head, *(f"{gpus}: cost at {PRICE:.2f} per GPU hour" for gpus in GPUS), "bottleneck"], lines


def _bottleneck(names: list[str]) -> str:
    """Of 1, 8, 64, 512 GPUs."""
    if not names:
        return "unknown: step not measured"
    if len(set(names)) == 1:
        return names[0]
    return ", ".join(f"{name} ({gpus})" for gpus, name in zip(GPUS, names, strict=True))


def step_table() -> Table:
    """One line per network, image size, kind of position and preparation of images."""
    measured = Measured()
    lines = {}
    for experiment in paper_recipes():
        recipe = experiment.recipe
        one, loader = measured_pass(recipe), measured.loader_per_s(recipe)
        label = loader_label(recipe.images)
        lines[_network(recipe), label] = [
            _network(recipe),
            f"{one.images} images, {1e3 * one.seconds:.3g}" if one else "",
            one.receipt if one else "",
            f"{one.images_per_s:.0f}" if one else "",
            label,
            f"{loader:.0f}",
            f"{one.images_per_s / loader:.1f}" if one else f"images/s / {loader:.0f}",
        ]
    head = ["network", "pass: ms", "receipt", "images/s per GPU", "images", "loader: images/s per core"]
    return [*head, "cores per GPU to keep up"], list(lines.values())


def network_table() -> Table:
    """One line per network, image size and kind of position."""
    rate, lines = Measured().disk_bytes_per_s, {}
    links = [(gpus, link) for link in (NVLINK, FAST, SLOW) for gpus in GPUS[1:]]
    links = [(gpus, link) for gpus, link in links if (gpus <= GPUS_PER_MACHINE) == (link is NVLINK)]
    for experiment in paper_recipes():
        recipe = experiment.recipe
        size = size_of(recipe)
        checkpoint = size.checkpoint(recipe.optimizer)
        exchanges = (all_reduce_s(size.gradients, gpus, link, buckets(size.gradients)) for gpus, link in links)
        lines[_network(recipe)] = [
            _network(recipe),
            f"{size.parameters:,}",
            f"{size.gradients / 1e6:.0f}",
            f"{gradient_bytes(size.parameters, 2) / 1e6:.0f}",
            *(f"{1e3 * seconds:.2g}" for seconds in exchanges),
            f"{checkpoint / 1e6:.0f}{' with average' if recipe.optimizer.ema else ''}",
            f"{checkpoint / rate:.2f}",
        ]
    head = ["network", "trained parameters", "gradients: MB", "in bfloat16: MB"]
    head += [f"{gpus} GPUs, {_LINKS[link]}: ms" for gpus, link in links]
    return [*head, "checkpoint: MB", "written in: s"], list(lines.values())


def _network(recipe: Recipe) -> str:
    position = "" if recipe.model.position == Model().position else f", position {recipe.model.position}"
    detector = "Mask R-CNN, " if isinstance(recipe, DetectionRecipe) else ""
    return f"{detector}{recipe.model.name}, {recipe.images.size} px{position}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bulk_table() -> Table:
    lines = []
    for row in receipt("predictor_cpu")["figures"]:
        per_core = row["predictor_images_per_s"] / row["threads"]
        hours = [images / per_core / cores / 3600 for images in BULK_IMAGES.values() for cores in BULK_CORES]
        cells = [_figure(value) for value in hours]
        lines.append([f"{row['network']}, {row['side_px']} px", f"{per_core:.1f}", *cells])
    columns = [f"{images}, {cores:,} core{'s' * (cores > 1)}: hours" for images in BULK_IMAGES for cores in BULK_CORES]
    return ["network", "images/s per core", *columns], lines
