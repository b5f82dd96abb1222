"""Nuclei under the microscope (dsb2018 and the like). The paper has none of it: everything here is ours."""

from dataclasses import replace

from botformer.recipes.detector_settings import SMALL
from botformer.recipes.schema import DetectionImages, DetectionRecipe, Model, Optimizer, Run, Schedule

_OURS = ("detector", "model", "images", "settings", "optimizer", "schedule", "run")
_ANCHORS = (12.0, 22.0, 38.0, 66.0)  # px; of 23,000 nuclei, fitted to 512 px, nine in ten span 10 to 64


def _compared(name: str) -> DetectionRecipe:
    """The same for both, so that they can be compared."""
    return DetectionRecipe(
        source="ours: R50 against BoT50 at a budget of minutes, from random weights",
        expect="a comparison, not a good detector",
        cost="half an hour on one CPU core",
        ours=_OURS,
        model=Model(name),
        images=DetectionImages(size=256, scale_jitter=(0.8, 1.25), rot90=True, mask_crop=56),
        settings=replace(SMALL, anchor_sizes=(8.0, 14.0, 24.0, 40.0), max_detections=300),
        optimizer=Optimizer("adamw", learning_rate=5e-4, weight_decay=0.05, clip_norm=5.0),
        schedule=Schedule(epochs=4, warmup_epochs=0.4),
        run=Run(batch_size=2, precision="float32", workers=1, threads=1, evaluate_every=4),
    )


RECIPES = {
    "nuclei": DetectionRecipe(
        source="ours: what the weights in the package were trained with",
        expect="see nuclei.md beside the weights",
        cost="an hour on two CPU cores",
        ours=_OURS,
        # A nucleus looks the same wherever it lies: position tables count cells, whatever the size of the image.
        model=Model("botnet_mini", zero_gamma=False, tables="offset"),
        images=DetectionImages(size=192, test_size=512, scale_jitter=(1.6, 4.0), hflip=True, rot90=True, mask_crop=56),
        settings=replace(SMALL, anchor_sizes=_ANCHORS, roi_samples=96, max_detections=300),
        optimizer=Optimizer("adamw", learning_rate=2e-3, weight_decay=0.05, clip_norm=5.0),
        schedule=Schedule(epochs=24, warmup_epochs=1.0),
        run=Run(batch_size=8, precision="float32", workers=1, threads=1, evaluate_every=8),
    ),
    "nuclei_resnet50": _compared("resnet50"),
    "nuclei_botnet50": _compared("botnet50"),
}
