"""docs/scaling.md: its model is held to measured runs, its formulas to what they count, its cells to receipts."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from botformer.create import create_classification_task
from botformer.recipes import find_experiment, find_recipe
from botformer.recipes.schema import ClassificationRecipe, Images, Model
from botformer.training.checkpoint import State, write_checkpoint
from botformer.training.distributed import open_accelerator
from botformer.training.train_step import TrainState

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import scaling  # noqa: E402
import scaling_measure  # noqa: E402
import scaling_rows  # noqa: E402
import scaling_tables  # noqa: E402

RECEIPT = json.loads((ROOT / "results/scaling_cpu.json").read_text(encoding="utf-8"))
RUNS = [row for row in RECEIPT["figures"] if row["what"] == scaling_rows.RUN]


def test_the_receipt_has_a_run_of_every_network_and_number_of_processes():
    wanted = {(recipe, processes) for recipe, _ in scaling_rows.NETWORKS for processes in (1, 2, 4)}
    assert {(row["recipe"], row["processes"]) for row in RUNS} == wanted


@pytest.mark.parametrize("row", RUNS, ids=lambda row: f"{row['recipe']}-{row['processes']}")
def test_predictions_from_the_parts_are_within_fifteen_percent_of_the_runs(row):
    cores = RECEIPT["hardware"]["cores"]
    predicted = scaling_rows.predicted_s(RECEIPT["figures"], row["recipe"], row["processes"], cores)
    assert predicted == pytest.approx(row["predicted"], abs=1e-3), "the receipt is of another model"
    assert abs(predicted / row["measured"] - 1) <= 0.15


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_a_ring_sends_the_bytes_and_takes_the_turns_that_are_charged(processes):
    """The algorithm, run: reduce-scatter, then all-gather, one chunk per process and turn."""
    values = np.random.default_rng(0).integers(0, 9, (processes, processes * 5))
    chunks = [list(np.split(row.copy(), processes)) for row in values]
    turns, sent = 0, 0
    for phase in range(2):
        for turn in range(processes - 1):
            moving = [(rank, (rank - turn + phase) % processes) for rank in range(processes)]
            copies = [chunks[rank][place].copy() for rank, place in moving]
            for (rank, place), chunk in zip(moving, copies, strict=True):
                receiver = chunks[(rank + 1) % processes]
                receiver[place] = chunk if phase else receiver[place] + chunk
            turns, sent = turns + 1, sent + len(copies[0])
    for mine in chunks:
        np.testing.assert_array_equal(np.concatenate(mine), values.sum(0))
    link = scaling.Link(bytes_per_s=7.0, latency_s=0.25)
    assert scaling.all_reduce_s(processes * 5, processes, link) == pytest.approx(sent / 7 + turns * 0.25)


def test_the_last_bucket_is_exposed_however_long_the_backward_pass():
    link = scaling.Link(1e9)
    gradients = 4 * scaling.BUCKET_BYTES
    whole = scaling.all_reduce_s(gradients, 8, link)
    assert scaling.exposed_s(gradients, 8, link, backward_s=1e3) == pytest.approx(whole / 4)
    assert scaling.exposed_s(gradients, 8, link, backward_s=whole / 2) == pytest.approx(whole / 2)
    assert scaling.exposed_s(gradients, 1, link, backward_s=0.0) == 0


@pytest.mark.parametrize(
    ("compute", "all_reduce", "loader", "seconds", "bottleneck"),
    [(3, 1, 2, 4, "compute"), (1, 3, 2, 4, "all-reduce"), (1, 1, 5, 5, "loader")],
)
def test_a_step_takes_as_long_as_what_it_waits_for(compute, all_reduce, loader, seconds, bottleneck):
    step = scaling.Step(compute, all_reduce, loader)
    assert (step.seconds, step.bottleneck) == (seconds, bottleneck)
    assert replace(step, prefetched=False).seconds == compute + all_reduce + loader


def test_processes_beyond_the_cores_take_turns():
    steps = [scaling.step_on_cores(2.0, 1.0, 0, n, 2, scaling.Link(1e9), 0).seconds for n in (1, 2, 4)]
    assert steps == [3, 3, 6]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw"])
def test_the_bytes_of_a_checkpoint_are_those_of_its_files(tmp_path, optimizer):
    recipe = find_recipe("imagenet_botnet_t3_350")
    assert isinstance(recipe, ClassificationRecipe)
    assert recipe.optimizer.ema
    recipe = replace(
        recipe,
        model=Model("botnet_nano"),
        images=Images(size=32),
        optimizer=replace(recipe.optimizer, name=optimizer),
        run=replace(recipe.run, device="cpu", precision="float32"),
    )
    task = create_classification_task(recipe, [str(number) for number in range(1000)])
    state = TrainState(task, recipe, open_accelerator(recipe.run))
    state.step({"images": torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "labels": torch.tensor([0, 1])}, 0.1)
    sets = list(state.set_names)
    write_checkpoint(tmp_path / "step-00000001", State(1, {}, 0, 0, None, sets, {}, {}, {}), state.tensors())
    written = sum(file.stat().st_size for file in (tmp_path / "step-00000001").glob("*.safetensors"))
    expected = scaling_tables.size_of(recipe).checkpoint(recipe.optimizer)
    assert expected < written < expected + 120_000  # names and shapes of three files


def test_steps_that_were_not_measured_leave_their_cells_empty():
    head, lines = scaling_tables.hours_table()
    cells = {line[0]: line[2:-1] for line in lines}
    assert set(cells) == {experiment.name for experiment in scaling_rows.paper_recipes()}
    for name, line in cells.items():
        assert all(line) == (scaling_tables.measured_pass(find_recipe(name)) is not None)
        assert all(line) or not any(line)
    unknown = {line[0] for line in lines if line[-1].startswith("unknown")}
    assert unknown == {name for name, line in cells.items() if not any(line)}
    for name in ("coco_botnet50_36_no_position", "coco_botnet50_72_1280", "coco_botnet101_36"):
        assert not any(cells[name]), "only botnet50 and resnet50 were measured, with the paper's positions at 1024 px"
    assert len(head) == len(lines[0])


def test_a_pass_is_the_figure_of_its_receipt():
    figures = json.loads((ROOT / "results/detection_gpu.json").read_text(encoding="utf-8"))["figures"]
    (row,) = [
        row
        for row in figures
        if (row["px"], row["mode"], row["implementation"]) == (1024, "training step", "Mask R-CNN, botnet50")
    ]
    one = scaling_tables.measured_pass(find_recipe("coco_botnet50_36"))
    assert one is not None
    assert (one.images, one.seconds) == (row["batch"], row["ms"] / 1e3)


def test_hours_are_images_over_images_per_second():
    """An epoch of ImageNet on one GPU, by the images it computes per second; a step leaves few images over."""
    experiment = find_experiment("imagenet_botnet50_100")
    one = scaling_tables.measured_pass(experiment.recipe)
    assert one is not None
    by_gpus = dict(scaling_tables.trainings(experiment, scaling_tables.Measured()))
    for gpus, training in by_gpus.items():
        computed = training.steps * training.step.compute_s
        assert computed == pytest.approx(100 * 1_281_167 / (gpus * one.images / one.seconds), rel=0.02)
    assert by_gpus[8].batch == 1024
    assert by_gpus[64].batch == 64 * one.images > 1024, "a batch of 1024 would leave a GPU 16 images, not measured"


def test_the_parts_of_a_run_are_measured(tmp_path, monkeypatch):
    """One process, few steps; rows are complete enough to predict the run from them."""
    for number in range(40):
        (tmp_path / "photos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / f"photos/{'ab'[number % 2]}/{number}.jpg")
    for module in (scaling_measure, scaling_rows):
        monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(scaling_measure, "TURNS", 1)
    threads = torch.get_num_threads()
    try:
        scaling_measure.work_as(0, 1, 0, "cifar10_mini", tmp_path / "photos", tmp_path)
    finally:
        torch.set_num_threads(threads)
    rows = scaling_rows.median_rows(json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")))
    (run,) = [row for row in scaling_rows.with_predictions(rows, cores=1) if row["what"] == scaling_rows.RUN]
    assert run["predicted"] > 0
    assert run["measured"] > 0
