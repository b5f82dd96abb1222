"""ImageNet classification, as far as the paper says; what it does not say is marked as ours."""

from botformer.recipes.experiment import Experiment
from botformer.recipes.schema import ClassificationRecipe, Images, Model, Optimizer, Run, Schedule

_PAPER = "table number unknown, section 4.7"
_STEPS_OURS = (
    "optimizer.name",
    "optimizer.learning_rate",
    "schedule.warmup_epochs",
    "run.precision",
    "images.evaluation_crop",
)
_SCALED_OURS = (
    *_STEPS_OURS,
    "optimizer.weight_decay",
    "optimizer.label_smoothing",
    "optimizer.ema",
    "model.drop_path",
    "model.dropout",
    "images.rand_augment_magnitude",
    "run.batch_size",
)


def _hundred_epochs(name: str, model: str, top1: float) -> Experiment:
    return Experiment(
        name,
        ClassificationRecipe(
            model=Model(model),
            optimizer=Optimizer(learning_rate=0.4, reference_batch=1024, weight_decay=1e-4),
            schedule=Schedule(epochs=100),
            run=Run(batch_size=1024),
        ),
        source="paper, ImageNet, 100 epochs: batch 1024, weight decay 1e-4, standard augmentation, cosine",
        expect=f"paper: {top1} % top-1",
        paper=_PAPER,
        ours=_STEPS_OURS,
    )


def _two_hundred_epochs(name: str, model: str, top1: float, top5: float) -> Experiment:
    return Experiment(
        name,
        ClassificationRecipe(
            model=Model(model),
            images=Images(rand_augment_layers=2),
            optimizer=Optimizer(learning_rate=1.6, reference_batch=4096, weight_decay=8e-5, label_smoothing=0.1),
            schedule=Schedule(epochs=200),
            run=Run(batch_size=4096),
        ),
        source="paper, ImageNet, 200 epochs: batch 4096, weight decay 8e-5, RandAugment (2, 10), label smoothing 0.1",
        expect=f"paper: {top1} / {top5} % top-1 / top-5",
        paper=_PAPER,
        ours=_STEPS_OURS,
    )


def _scaled(name: str, model: str, size: int, top1: float, drop_path: float, dropout: float) -> Experiment:
    return Experiment(
        name,
        ClassificationRecipe(
            model=Model(model, drop_path=drop_path, dropout=dropout),
            images=Images(size=size, rand_augment_layers=2, rand_augment_magnitude=15),
            optimizer=Optimizer(
                learning_rate=1.6, reference_batch=4096, weight_decay=4e-5, label_smoothing=0.1, ema=0.9999
            ),
            schedule=Schedule(epochs=350),
            run=Run(batch_size=4096),
        ),
        source="paper, scaled models, 350 epochs: SE, SiLU, RandAugment, lower weight decay, DropConnect, dropout; "
        "the rates are not published",
        expect=f"paper: {top1} % top-1",
        paper=_PAPER,
        ours=_SCALED_OURS,
    )


EXPERIMENTS = (
    _hundred_epochs("imagenet_resnet50_100", "resnet50", 76.8),
    _hundred_epochs("imagenet_botnet50_100", "botnet50", 77.0),
    _hundred_epochs("imagenet_botnet_s1_50_100", "botnet_s1_50", 77.7),
    _two_hundred_epochs("imagenet_resnet50_200", "resnet50", 77.7, 93.9),
    _two_hundred_epochs("imagenet_botnet50_200", "botnet50", 78.3, 94.2),
    _two_hundred_epochs("imagenet_botnet_s1_50_200", "botnet_s1_50", 79.1, 94.4),
    #                                      model        px   top-1 drop path dropout
    _scaled("imagenet_botnet_t3_350", "botnet_t3", 224, 81.7, 0.1, 0.2),
    _scaled("imagenet_botnet_t4_350", "botnet_t4", 224, 82.8, 0.1, 0.25),
    _scaled("imagenet_botnet_t5_350", "botnet_t5", 256, 83.5, 0.2, 0.3),
    _scaled("imagenet_botnet_t6_350", "botnet_t6", 320, 84.0, 0.2, 0.3),
    _scaled("imagenet_botnet_t7_320_350", "botnet_t7", 320, 84.2, 0.2, 0.4),
    _scaled("imagenet_botnet_t7_350", "botnet_t7", 384, 84.7, 0.2, 0.4),
)
