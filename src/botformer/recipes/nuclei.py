"""Nuclei under the microscope (dsb2018 and the like). The paper has none of it: everything here is ours."""

from dataclasses import replace

from botformer.recipes.detector_settings import SMALL
from botformer.recipes.experiment import Experiment
from botformer.recipes.schema import DetectionImages, DetectionRecipe, Model, Optimizer, Run, Schedule

_OURS = ("detector", "model", "images", "settings", "optimizer", "schedule", "run")
_ANCHORS = (12.0, 22.0, 38.0, 66.0)  # px; of 23,000 nuclei, fitted to 512 px, nine in ten span 10 to 64


def _compared(name: str, model: str, expect: str) -> Experiment:
    """The same for both, so that they can be compared."""
    return Experiment(
        name,
        DetectionRecipe(
            model=Model(model),
            images=DetectionImages(size=256, scale_jitter=(0.8, 1.25), rot90=True, mask_crop=56),
            settings=replace(SMALL, anchor_sizes=(8.0, 14.0, 24.0, 40.0), max_detections=300),
            optimizer=Optimizer("adamw", learning_rate=5e-4, weight_decay=0.05, clip_norm=5.0),
            schedule=Schedule(epochs=4, warmup_epochs=0.4),
            run=Run(batch_size=2, precision="float32", workers=1, threads=1, evaluate_every=4),
        ),
        source="ours: R50 against BoT50 at a budget of minutes, from random weights",
        expect=expect,
        cost="1040 steps on 2 CPU cores; the time was not recorded",
        receipt="nuclei_proof",
        ours=_OURS,
    )


EXPERIMENTS = (
    Experiment(
        "nuclei",
        DetectionRecipe(
            # A nucleus looks the same wherever it lies: position tables count cells, whatever the size of the image.
            model=Model("botnet_mini", zero_gamma=False, tables="offset"),
            images=DetectionImages(
                size=192, test_size=512, scale_jitter=(1.6, 4.0), hflip=True, rot90=True, mask_crop=56
            ),
            settings=replace(SMALL, anchor_sizes=_ANCHORS, roi_samples=96, max_detections=300),
            optimizer=Optimizer("adamw", learning_rate=2e-3, weight_decay=0.05, clip_norm=5.0),
            schedule=Schedule(epochs=48, warmup_epochs=1.0),
            run=Run(batch_size=8, precision="float32", workers=1, threads=1, evaluate_every=16),
        ),
        source="ours: what the weights in the package were trained with",
        expect="mask AP 0.555 on dsb2018's validation split; nuclei.md beside the weights says more",
        cost="3120 steps in 7432 s, one thread, on 2 CPU cores that did other work too",
        receipt="nuclei_shipped",
        ours=_OURS,
    ),
    _compared(
        "nuclei_resnet50", "resnet50", "mask AP 0.308, the mean of three seeds: a comparison, not a good detector"
    ),
    _compared(
        "nuclei_botnet50", "botnet50", "mask AP 0.307, the mean of three seeds: a comparison, not a good detector"
    ),
)
