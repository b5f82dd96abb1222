"""Trainings over several calls, at a tiny size on the CPU."""

import json
import os
import signal
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu.data_packs import write_quick_packs
from benchmarks.gpu.training import MORE_TO_DO, Calls, groups, read_records
from benchmarks.gpu.training_table import RECEIPTS, RUNS, Job, Row, changed, full_recipe, jobs, quick_recipe
from botformer.recipes import find_recipe
from botformer.training.schedule import peak_learning_rate

ROW = Row("colours", "cifar10_resnet50", "cifar10", epochs=30, seeds=(0, 1))
STEPS = 80


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs")
    write_quick_packs(folder)
    return folder


def job(seed: int = 0, steps: int = STEPS, **changes: Any) -> Job:
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return Job(
        ROW, changed(quick_recipe(ROW), {"run.seed": seed, "run.max_steps": steps, "run.evaluate_every": 1000, **given})
    )


def calls(folder: Path, packs: Path) -> Calls:
    return Calls(folder / "results", folder / "work", packs, quick=True)


def figures(folder: Path, name: str = "cifar10") -> list[dict[str, Any]]:
    return json.loads((folder / "results" / f"{name}_cpu_quick.json").read_text())["figures"]


def stop_after(steps: int, metrics: Path) -> threading.Thread:
    """SIGTERM for this process once the run has done so many steps."""

    def watch() -> None:
        until = time.monotonic() + 200
        while len(read_records(metrics)) < steps and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_two_calls_end_like_one(tmp_path: Path, packs: Path) -> None:
    assert calls(tmp_path / "one", packs).train([job()], 500) == 0
    metrics = tmp_path / "two" / "work" / "runs" / "colours_0" / "metrics.jsonl"
    stopping = stop_after(3, metrics)
    assert calls(tmp_path / "two", packs).train([job()], 500) == MORE_TO_DO
    stopping.join()
    (row,) = figures(tmp_path / "two")
    assert row["state"].startswith("stopped; the next call continues")
    assert 3 <= row["steps"] < STEPS
    assert calls(tmp_path / "two", packs).train([job()], 500) == 0
    timed = {"images_per_s", "seconds", "memory_mb", "waited"}
    one, two = ({name: row[name] for row in figures(tmp_path / way) for name in row} for way in ("one", "two"))
    assert timed <= one.keys()
    assert {name: one[name] for name in one.keys() - timed} == {name: two[name] for name in two.keys() - timed}
    assert (one["state"], one["steps"], one["top1"] is None) == ("done", STEPS, False)
    first, second = (
        load_file(tmp_path / way / f"work/runs/colours_0/checkpoints/step-{STEPS:08d}/model.safetensors")
        for way in ("one", "two")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    (loader,) = figures(tmp_path / "two", "loader")
    assert min(loader["loader_images_per_s"], loader["step_images_per_s"]) > 0


def test_every_training_has_a_folder_and_a_log_of_its_own(tmp_path: Path, packs: Path) -> None:
    kit, all_jobs = calls(tmp_path, packs), list(jobs())
    paths = {path for each in all_jobs for path in (kit.run(each), kit.log(each))}
    assert len(paths) == 2 * len(all_jobs)


def test_a_failed_training_is_a_row_and_the_next_one_starts(tmp_path: Path, packs: Path) -> None:
    broken, sound = job(optimizer__learning_rate=1e30, optimizer__clip_norm=0.0), job(seed=1, steps=2)
    assert calls(tmp_path, packs).train([broken, sound], 500) == 0
    failed, done = figures(tmp_path)
    assert failed["state"].startswith("failed: InputError: the loss is not finite")
    assert (failed["seed"], done["seed"], done["state"], done["steps"]) == (0, 1, "done", 2)
    assert calls(tmp_path, packs).train([broken, sound], 0) == MORE_TO_DO, "the failed one would be tried again"
    assert calls(tmp_path, packs).train([sound], 0) == 0


def test_a_detector_is_trained_or_its_row_names_the_package_that_is_missing(tmp_path: Path, packs: Path) -> None:
    assert calls(tmp_path, packs).train(list(jobs(("nuclei_resnet50",), quick=True)), 500) == 0
    (row,) = figures(tmp_path, "nuclei")
    assert row["run"] == "nuclei_resnet50"
    if find_spec("faster_coco_eval"):
        assert (row["state"], row["steps"]) == ("done", 4)
        assert row["mask_AP"] >= 0
    else:
        assert row["state"].startswith("failed: InputError: average precision needs the package faster-coco-eval")


def test_without_its_data_a_training_waits(tmp_path: Path, packs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nuclei = next(jobs(("nuclei_resnet50",), quick=True))
    only_cifar10 = tmp_path / "packs"
    only_cifar10.mkdir()
    os.link(packs / "cifar10.tar.xz", only_cifar10 / "cifar10.tar.xz")
    assert calls(tmp_path, only_cifar10).train([nuclei, job(seed=1, steps=2)], 500) == 1
    assert "nuclei.tar.xz is missing" in capsys.readouterr().err
    assert [row["state"] for row in figures(tmp_path)] == ["done"]


def test_the_rows_scale_a_recipe_and_keep_its_rules() -> None:
    for row in RUNS:
        recipe, original = full_recipe(row), find_recipe(row.recipe)
        assert recipe.schedule.epochs == row.epochs
        assert recipe.schedule.warmup_epochs / row.epochs == pytest.approx(
            original.schedule.warmup_epochs / original.schedule.epochs
        )
        assert recipe.run.precision == "bf16"
        assert row.receipt in RECEIPTS
    cifar10 = next(full_recipe(row) for row in RUNS if row.receipt == "cifar10")
    assert peak_learning_rate(cifar10.optimizer, cifar10.run.batch_size) == 0.4  # 0.2 for 256, 512 images
    names = [job.name for job in jobs()]
    nuclei = [f"nuclei_{network}_{seed}" for seed in range(3) for network in ("resnet50", "botnet50")]
    assert names[:8] == [*nuclei, "cifar10_botnet_s1_50_0", "cifar10_resnet50_0"]
    assert [len(group) for group in groups(list(jobs()))] == [6, *[1] * 7, *[6] * 5, 3], "nuclei share the GPU"
    assert len(set(names)) == len(names) == 13 + 33
    rows = tuple(row.name for row in RUNS if row.receipt == "positions")
    positions = [job.recipe.model.position for job in jobs(rows)]
    assert positions == ["relative", "none", "absolute", "position_only", "blog"]
