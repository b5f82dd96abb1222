"""CIFAR-10. The paper has none of it: everything here is ours."""

from dataclasses import replace

from botformer.recipes.schema import ClassificationRecipe, Images, Model, Optimizer, Run, Schedule

_FULL = ClassificationRecipe(
    source="ours; the paper has no CIFAR-10",
    expect="public reports at this size: 95 to 96 %",
    cost="hours on one GPU",
    ours=("model", "images", "optimizer", "schedule", "run"),
    model=Model("botnet_s1_50_cifar"),
    images=Images(size=32, augmentation="crop", rand_augment_layers=2, rand_augment_magnitude=10, cutmix=1.0,
                  evaluation_crop=1.0),
    optimizer=Optimizer(learning_rate=0.2, weight_decay=5e-4, label_smoothing=0.1, clip_norm=1.0),
    schedule=Schedule(epochs=200),
    run=Run(batch_size=256),
)  # fmt: skip

RECIPES = {
    "cifar10_botnet_s1_50": _FULL,
    "cifar10_botnet50": replace(_FULL, model=Model("botnet50_cifar")),
    "cifar10_resnet50": replace(_FULL, model=Model("resnet50_cifar")),
    "cifar10_mini": replace(
        _FULL,
        expect="a first look, not a result",
        cost="minutes on two CPU cores",
        model=Model("botnet_mini", zero_gamma=False),
        images=Images(size=32, augmentation="crop", evaluation_crop=1.0),
        optimizer=Optimizer("adamw", learning_rate=4e-3, weight_decay=0.05),
        schedule=Schedule(epochs=6, warmup_epochs=0.5),
        run=Run(batch_size=128, precision="float32", workers=1, threads=1),
    ),
}
