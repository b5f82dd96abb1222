"""Comparisons in small, from ImageNet weights on a CPU. The paper has none of it: everything here is ours.

One recipe for all networks of a data set: what is compared is given on the command line, such as
`--model.name botnet50_half`. benchmarks/evidence_rows.py has the comparisons.
"""

from dataclasses import replace

from botformer.recipes.detector_settings import SMALL
from botformer.recipes.experiment import Experiment
from botformer.recipes.schema import (
    ClassificationRecipe,
    DetectionImages,
    DetectionRecipe,
    Images,
    Model,
    Optimizer,
    Run,
    Schedule,
)

_SOURCE = "ours: networks of half width from ImageNet weights, at a budget of minutes on one core"
_WEIGHTS = "--model.weights imagenet"
_BESIDE = "of steps on one of 2 CPU cores that did other work too"
_OURS = ("model", "images", "optimizer", "schedule", "run")
_MODEL = Model("botnet50_half", norm_epsilon=1e-5)  # what the weights were trained with


def _run(batch_size: int, epochs: int) -> Run:
    return Run(batch_size, precision="float32", workers=0, threads=1, evaluate_every=epochs, checkpoint_every=1)


def _detector(
    name: str, images: DetectionImages, anchors: tuple[float, ...], epochs: int, expect: str, cost: str
) -> Experiment:
    return Experiment(
        name,
        DetectionRecipe(
            model=_MODEL,
            images=images,
            settings=replace(SMALL, anchor_sizes=anchors, max_detections=300),
            optimizer=Optimizer("adamw", learning_rate=1.5e-3, loaded_rate=0.2, weight_decay=0.05, clip_norm=5.0),
            schedule=Schedule(epochs=epochs, warmup_epochs=epochs / 10),
            run=_run(8, epochs),
        ),
        source=_SOURCE,
        expect=expect,
        cost=cost,
        receipt="evidence_detection",
        options=_WEIGHTS,
        ours=("detector", "settings", *_OURS),
    )


EXPERIMENTS = (
    _detector(
        "nuclei_half",
        DetectionImages(size=256, scale_jitter=(0.8, 1.25), rot90=True, mask_crop=56),
        anchors=(8.0, 14.0, 24.0, 40.0),
        epochs=4,
        expect="mask AP 0.421, the mean of three seeds; resnet50_half 0.361",
        cost=f"418 to 611 s {_BESIDE}",
    ),
    _detector(
        "balloons_half",
        DetectionImages(size=384, scale_jitter=(0.8, 1.25)),
        anchors=(24.0, 48.0, 96.0, 192.0),
        epochs=16,
        expect="mask AP 0.346, the mean of three seeds; resnet50_half 0.299",
        cost=f"558 to 715 s {_BESIDE}",
    ),
    Experiment(
        "photos_half",
        ClassificationRecipe(
            model=_MODEL,
            images=Images(size=128, least_area=0.35),
            optimizer=Optimizer(
                "adamw", learning_rate=1e-3, loaded_rate=0.2, weight_decay=0.05, label_smoothing=0.1, clip_norm=1.0
            ),
            schedule=Schedule(epochs=4, warmup_epochs=0.4),
            run=_run(32, 4),
        ),
        source=_SOURCE,
        expect="84.9 % top-1, the mean of 3 seeds; resnet50_half 86.3 %",
        cost=f"197 to 406 s {_BESIDE}",
        receipt="evidence_classification",
        options=_WEIGHTS,
        ours=_OURS,
    ),
)
