"""The demo: nuclei in a micrograph, handwritten digits on photographs. All of it is ours, chosen for minutes on two CPU
cores."""

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

_SOURCE = "ours: the demo"
_COST = "312 s on 2 CPU cores, the whole demo"
_CLASSIFICATION = ("model", "images", "optimizer", "schedule", "run")
_DETECTION = ("detector", "model", "images", "settings", "optimizer", "schedule", "run")

EXPERIMENTS = (
    Experiment(
        "digits",
        ClassificationRecipe(
            # At this length of training blocks that start as the identity only lose time.
            model=Model("botnet_nano", zero_gamma=False),
            images=Images(size=48, augmentation="crop", hflip=False, evaluation_crop=1.0),
            optimizer=Optimizer("adamw", learning_rate=6e-3, weight_decay=0.05),
            schedule=Schedule(epochs=2, warmup_epochs=0.15),
            # Layers this small only wait for a second thread; the other core reads the images.
            run=Run(batch_size=64, precision="float32", workers=1, threads=1),
        ),
        source=_SOURCE,
        expect="91 % top-1 on unseen digits and photographs",
        cost=_COST,
        receipt="demo",
        ours=_CLASSIFICATION,
    ),
    Experiment(
        "digit_scenes",
        DetectionRecipe(
            model=Model("botnet_nano", zero_gamma=False),
            images=DetectionImages(size=160, scale_jitter=(0.9, 1.1), hflip=False, mask_crop=56),
            settings=replace(
                SMALL,
                levels=("p3", "p4", "p5"),
                anchor_sizes=(22.0, 36.0, 58.0),
                anchor_ratios=(1.0, 1.6, 3.0),
                rpn_pre_nms_top_n=200,
                rpn_post_nms_top_n=150,
                roi_samples=32,
            ),
            optimizer=Optimizer("adamw", learning_rate=3e-3, weight_decay=0.05, clip_norm=5.0),
            schedule=Schedule(epochs=1, warmup_epochs=0.05),
            # In the demo the nuclei are done by now, and their core is free.
            run=Run(batch_size=4, precision="auto", workers=1, threads=2),
        ),
        source=_SOURCE,
        expect="mask AP50 0.78 on unseen scenes, starting from the classifier of `digits`",
        cost=_COST,
        receipt="demo",
        options="--model.weights runs/digits",
        ours=_DETECTION,
    ),
    Experiment(
        "nuclei_mini",
        DetectionRecipe(
            # A nucleus looks the same wherever it lies: position tables count cells, whatever the size of the image.
            model=Model("botnet_nano", zero_gamma=False, tables="offset"),
            images=DetectionImages(
                size=128, test_size=512, scale_jitter=(1.05, 2.25), hflip=True, rot90=True, mask_crop=56
            ),
            settings=SMALL,
            optimizer=Optimizer("adamw", learning_rate=2e-3, weight_decay=0.05, clip_norm=5.0),
            schedule=Schedule(epochs=10, warmup_epochs=1.0),
            run=Run(batch_size=4, precision="auto", workers=1, threads=1, evaluate_every=10, checkpoint_every=5),
        ),
        source=_SOURCE,
        expect="mask AP50 0.93 on the whole nuclei of the unseen strip",
        cost=_COST,
        receipt="demo",
        ours=_DETECTION,
    ),
)
