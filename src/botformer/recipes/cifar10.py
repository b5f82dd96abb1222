"""CIFAR-10. The paper has none of it: everything here is ours."""

from botformer.recipes.experiment import Experiment
from botformer.recipes.schema import ClassificationRecipe, Images, Model, Optimizer, Run, Schedule

_SOURCE = "ours; the paper has no CIFAR-10"
_OURS = ("model", "images", "optimizer", "schedule", "run")


def _full(name: str, model: str) -> Experiment:
    return Experiment(
        name,
        ClassificationRecipe(
            model=Model(model),
            images=Images(
                size=32, augmentation="crop", rand_augment_layers=2, rand_augment_magnitude=10, cutmix=1.0,
                evaluation_crop=1.0,
            ),
            optimizer=Optimizer(learning_rate=0.2, weight_decay=5e-4, label_smoothing=0.1, clip_norm=1.0),
            schedule=Schedule(epochs=200),
            run=Run(batch_size=256),
        ),
        source=_SOURCE,
        expect="95 to 96 % top-1 are public reports of networks of this size; ours is not known",
        ours=_OURS,
    )  # fmt: skip


EXPERIMENTS = (
    _full("cifar10_botnet_s1_50", "botnet_s1_50_cifar"),
    _full("cifar10_botnet50", "botnet50_cifar"),
    _full("cifar10_resnet50", "resnet50_cifar"),
    Experiment(
        "cifar10_mini",
        ClassificationRecipe(
            model=Model("botnet_mini", zero_gamma=False),
            images=Images(size=32, augmentation="crop", evaluation_crop=1.0),
            optimizer=Optimizer("adamw", learning_rate=4e-3, weight_decay=0.05),
            schedule=Schedule(epochs=6, warmup_epochs=0.5),
            run=Run(batch_size=128, precision="float32", workers=1, threads=1),
        ),
        source=_SOURCE,
        expect="72 % top-1: a first look, not a result",
        cost="540 s with the evaluation, on 2 CPU cores that did other work too",
        receipt="cifar10_mini_cpu",
        ours=_OURS,
    ),
)
