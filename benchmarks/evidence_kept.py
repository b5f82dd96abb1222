"""results/evidence/RUN.npz: what is kept of every training, enough to compare it when its run is gone.

Each has the training's line of a receipt (as JSON) and its validation, with every resample, in float32.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from evidence_rows import metrics_of_all_rows
from evidence_statistics import Validation, validation
from evidence_trainings import Job

from botformer.atomic_write import atomic_file


@dataclass(frozen=True)
class Kept:
    """One training."""

    training: dict[str, Any]
    """arm, seed, seconds (of training steps), and commit, processor and command of the training."""
    validation: Validation


def is_kept(job: Job, folder: Path) -> bool:
    """Whether all that rows measure of a training, with the options that its arm has now, is there."""
    path = folder / f"{job.run.name}.npz"
    if not path.is_file():
        return False
    with np.load(path) as file:
        same = json.loads(str(file["training"]))["command"] == job.command
        return same and set(metrics_of_all_rows(job.name)) <= set(file.files)


def keep(job: Job, folder: Path) -> None:
    """Of a training that is done; what is kept already is not measured again."""
    path = folder / f"{job.run.name}.npz"
    predictions = sha256((job.run / "evaluation" / "predictions.json").read_bytes()).hexdigest()
    if is_kept(job, folder):
        with np.load(path) as file:
            if str(file["predictions"]) == predictions:
                return
    metrics = metrics_of_all_rows(job.name)
    truth = job.data / job.arm.dataset.truth
    found = validation(job.arm.dataset, job.run / "evaluation", truth, metrics)
    training = {
        "arm": job.name,
        "seed": job.seed,
        "seconds": round(job.seconds),
        **json.loads(job.measured.read_text("utf-8")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            training=np.array(json.dumps(training)),
            predictions=np.array(predictions),
            images=np.array(found.images),
            **{metric: values.astype(np.float32) for metric, values in found.resampled.items()},
        )


def kept_trainings(folder: Path, arms: Iterable[str]) -> dict[str, dict[int, Kept]]:
    """Arm -> seed -> what is kept, of these arms."""
    found: dict[str, dict[int, Kept]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            training = json.loads(str(file["training"]))
            name, seed = training["arm"], training["seed"]
            if name not in arms or not is_kept(Job(name, seed, folder), folder):
                continue
            metrics = {metric: file[metric].astype(np.float64) for metric in metrics_of_all_rows(name)}
            found.setdefault(name, {})[seed] = Kept(training, Validation(str(file["images"]), metrics))
    return found
