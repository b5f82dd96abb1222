"""THE TABLE of evidence in small: what is trained (ARMS), and what the paper claims of it (ROWS). Data alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Dataset:
    """Of an archive NAME.zip."""

    name: str
    split: str
    metric: str
    """What effects are measured in: top1, or mask_AP."""
    archive: str
    """How the sha256 of the archive begins that the receipts here are of."""
    caveat: str

    @property
    def contents(self) -> tuple[str, ...]:
        """What an archive must have, of the two splits."""
        if self.metric == "top1":
            return "train", self.split
        return "annotations/instances_train.json", self.truth

    @property
    def truth(self) -> str:
        """The annotations of the split that is measured on; a classifier's are folders."""
        return f"annotations/instances_{self.split}.json"


@dataclass(frozen=True)
class Arm:
    """Trainings that differ in the seed alone: a recipe with some fields changed."""

    dataset: Dataset
    recipe: str
    """Row of `botformer.recipes`."""
    changes: Mapping[str, Any]
    """Fields of the recipe, as the command line names them."""


NUCLEI = Dataset(
    "dsb2018",
    "val",
    "mask_AP",
    "be3df815f833",
    "143 validation images of nuclei, split off by a hash of their names: crops of one slide may be in both splits",
)
BALLOONS = Dataset("balloons", "val", "mask_AP", "ec591e67b9b9", "13 validation images: a noisy AP")
PHOTOS = Dataset(
    "photos",
    "validation",
    "top1",
    "ba792af38868",
    "503 validation photographs of waste (TrashNet); some objects may be in both splits",
)
CIFAR10 = Dataset("cifar10_jpeg", "test", "top1", "41adc03ddffb", "CIFAR-10 as a lossy JPEG copy, 10,000 test images")

_R50, _BOT50 = {"model.name": "resnet50_half"}, {"model.name": "botnet50_half"}
_STRIDE_1 = {"model.output_stride": 16}
"""c5 keeps the size of c4's map, its convolutions dilated: their weights see what they saw in training."""


_BOT_S1_50 = {"model.name": "botnet_s1_50_half"}
_ONE_HEAD = {"model.heads": 1}
_ONE_RATE = {"optimizer.loaded_rate": 1.0}
_IMAGENET = {"model.weights": "imagenet"}
_TWO_EPOCHS = {"schedule.epochs": 2, "run.evaluate_every": 2, "run.workers": 0}
SIZE_512 = {"images.size": 512, "settings.anchor_sizes": (16.0, 28.0, 48.0, 80.0), "images.mask_crop": 112}
_SIZE_128 = {"images.size": 128, "settings.anchor_sizes": (4.0, 7.0, 12.0, 20.0), "images.mask_crop": 28}
"""Of nuclei: anchors and the crops of ground-truth masks scale with the image."""


def _nuclei(*changes: Mapping[str, Any]) -> Arm:
    return _arm(NUCLEI, "nuclei_half", _IMAGENET, *changes)


def _photos(*changes: Mapping[str, Any]) -> Arm:
    return _arm(PHOTOS, "photos_half", _IMAGENET, *changes)


def _cifar10(name: str, *changes: Mapping[str, Any]) -> Arm:
    return _arm(CIFAR10, "cifar10_mini", {"model.name": name}, _TWO_EPOCHS, *changes)


def _arm(dataset: Dataset, recipe: str, *changes: Mapping[str, Any]) -> Arm:
    return Arm(dataset, recipe, {name: value for part in changes for name, value in part.items()})


def _position(kind: str) -> dict[str, Any]:
    return {"model.position": kind}


def _longer(times: int) -> dict[str, Any]:
    """The schedule of nuclei_half, so many times as long."""
    return {"schedule.epochs": 4 * times, "schedule.warmup_epochs": 0.4 * times, "run.evaluate_every": 4 * times}


ARMS: dict[str, Arm] = {
    "nuclei R50": _nuclei(_R50),
    "nuclei BoT50": _nuclei(_BOT50),
    "nuclei BoT50 content": _nuclei(_BOT50, _position("none")),
    "nuclei BoT50 position": _nuclei(_BOT50, _position("position_only")),
    "nuclei BoT50 absolute": _nuclei(_BOT50, _position("absolute")),
    **{
        f"nuclei {name} x{times}": _nuclei(network, _longer(times))
        for times in (2, 4)
        for name, network in (("R50", _R50), ("BoT50", _BOT50))
    },
    **{
        f"nuclei {name} jitter {low}": _nuclei(network, {"images.scale_jitter": (low, 2.0)})
        for low in (0.5, 0.1)
        for name, network in (("R50", _R50), ("BoT50", _BOT50))
    },
    "nuclei R50 one rate": _nuclei(_R50, _ONE_RATE),
    "nuclei BoT50 one rate": _nuclei(_BOT50, _ONE_RATE),
    **{
        f"nuclei {name} {px} px": _nuclei(network, size)
        for px, size in ((128, _SIZE_128), (512, SIZE_512))
        for name, network in (("R50", _R50), ("BoT50", _BOT50))
    },
    "balloons R50": _arm(BALLOONS, "balloons_half", _IMAGENET, _R50),
    "balloons BoT50": _arm(BALLOONS, "balloons_half", _IMAGENET, _BOT50),
    "photos R50": _photos(_R50),
    "photos BoT50": _photos(_BOT50),
    "photos R50 stride 1": _photos(_R50, _STRIDE_1),
    "photos BoT-S1-50": _photos(_BOT_S1_50),
    "photos BoT-S1-50 listing": _photos(_BOT_S1_50, _position("blog"), _ONE_HEAD),
    "CIFAR R": _cifar10("resnet_mini"),
    "CIFAR BoT": _cifar10("botnet_mini"),
    "CIFAR BoT content": _cifar10("botnet_mini", _position("none")),
    "CIFAR BoT position": _cifar10("botnet_mini", _position("position_only")),
    "CIFAR BoT absolute": _cifar10("botnet_mini", _position("absolute")),
    "CIFAR BoT listing": _cifar10("botnet_mini", _position("blog"), _ONE_HEAD),
    "CIFAR BoT listing, 4 heads": _cifar10("botnet_mini", _position("blog")),
}


@dataclass(frozen=True)
class Effect:
    """A sum of arms' means with signs, which is above 0 where the claim holds."""

    claim: str
    plus: tuple[str, ...]
    minus: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    """Others than the data set's own, such as mask_APs."""
    paper: Mapping[str, str] = field(default_factory=dict)
    """Metric -> the same difference in the paper's table, in points, where it has one."""

    @property
    def arms(self) -> tuple[str, ...]:
        return (*self.plus, *self.minus)

    @property
    def dataset(self) -> Dataset:
        (dataset,) = {ARMS[arm].dataset for arm in self.arms}
        return dataset


@dataclass(frozen=True)
class Row:
    """One claim of the paper with what is measured of it."""

    name: str
    claim: str
    setting: str
    """What is the same for all arms, and what the paper had in its place."""
    effects: tuple[Effect, ...] = field(default_factory=tuple)

    @property
    def title(self) -> str:
        return self.name.replace("-", " ").capitalize()

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(arm for effect in self.effects for arm in effect.arms))

    def metrics(self, arm: str) -> tuple[str, ...]:
        """What is measured of an arm."""
        return _metrics(arm, self.effects)


def metrics_of_all_rows(arm: str) -> tuple[str, ...]:
    """What any row measures of an arm."""
    return _metrics(arm, [effect for row in ROWS.values() for effect in row.effects])


def _metrics(arm: str, effects: Iterable[Effect]) -> tuple[str, ...]:
    more = (metric for effect in effects if arm in effect.arms for metric in effect.metrics)
    return tuple(dict.fromkeys((ARMS[arm].dataset.metric, *more)))


_SIZES = ("mask_APs", "mask_APm", "box_AP")
"""There are no large nuclei."""


def _nuclei_setting(ours: str = "4 epochs", papers: str = "1024 px, 36 epochs") -> str:
    return (
        "Mask R-CNN, half width, c5 stride 2 for all, ImageNet weights but for the attention, 256 px, jitter 0.8 to "
        f"1.25, {ours} of 521 images, batch 8, AdamW, loaded weights at a fifth of the learning rate. The paper: full "
        f"width, COCO, {papers}."
    )


_PHOTOS_SETTING = (
    "half width, ImageNet weights but for the attention, 128 px, 4 epochs of 2,018 images, batch 32, AdamW, loaded "
    "weights at a fifth of the learning rate. The paper: full width, ImageNet from random weights, 224 px, 100 epochs."
)
_CIFAR_SETTING = (
    "CIFAR-10: networks of quarter width with five blocks, c5 stride 1 for all (maps of 4x4), random weights, 2 epochs."
)


_TABLE_2 = {"mask_AP": "1.2 (36 epochs)", "box_AP": "1.5 (36 epochs)"}


def _grows(what: str, base: tuple[str, str], larger: tuple[str, str], paper: str = "") -> Effect:
    """The gain of BoT50 over R50 (`(R50, BoT50)` each) is larger there. `paper`: in mask AP."""
    return Effect(what, (larger[1], base[0]), (base[1], larger[0]), paper={"mask_AP": paper} if paper else {})


_BASE = ("nuclei R50", "nuclei BoT50")

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            "detection",
            "BoT50 is better than R50 in detection and segmentation (Table 2, section 4.1)",
            f"{_nuclei_setting()} Where an effect says so, 8 epochs. Balloons: 384 px, 16 epochs of 61 images.",
            (
                Effect("nuclei: BoT50 - R50", ("nuclei BoT50",), ("nuclei R50",), _SIZES, _TABLE_2),
                Effect("nuclei, 8 epochs: BoT50 - R50", ("nuclei BoT50 x2",), ("nuclei R50 x2",), _SIZES, _TABLE_2),
                Effect(
                    "nuclei, loaded weights at the rate of new ones: BoT50 - R50",
                    ("nuclei BoT50 one rate",),
                    ("nuclei R50 one rate",),
                    _SIZES,
                    _TABLE_2,
                ),
                Effect(
                    "balloons: BoT50 - R50",
                    ("balloons BoT50",),
                    ("balloons R50",),
                    ("mask_APs", "mask_APm", "mask_APl", "box_AP"),
                    _TABLE_2,
                ),
            ),
        ),
        Row(
            "positions",
            "content and relative position > relative position alone > content alone > content and absolute position > "
            "R50 (Table 4, section 4.3)",
            _nuclei_setting(),
            (
                Effect(
                    "both - position alone", ("nuclei BoT50",), ("nuclei BoT50 position",), paper={"mask_AP": "0.5"}
                ),
                Effect(
                    "position alone - content alone",
                    ("nuclei BoT50 position",),
                    ("nuclei BoT50 content",),
                    paper={"mask_AP": "0.1"},
                ),
                Effect(
                    "content alone - absolute",
                    ("nuclei BoT50 content",),
                    ("nuclei BoT50 absolute",),
                    paper={"mask_AP": "0.2"},
                ),
                Effect("absolute - R50", ("nuclei BoT50 absolute",), ("nuclei R50",), paper={"mask_AP": "0.4"}),
                Effect("both - content alone", ("nuclei BoT50",), ("nuclei BoT50 content",), paper={"mask_AP": "0.6"}),
                Effect("both - absolute", ("nuclei BoT50",), ("nuclei BoT50 absolute",), paper={"mask_AP": "0.8"}),
            ),
        ),
        Row(
            "schedule",
            "longer training helps BoT50 more than R50 (Table 2, section 4.1)",
            _nuclei_setting("4 and 8 epochs", "1024 px, 12 and 24 epochs"),
            (
                _grows(
                    "gain after 8 epochs - after 4",
                    _BASE,
                    ("nuclei R50 x2", "nuclei BoT50 x2"),
                    "0.8 (24 - 12 epochs)",
                ),
            ),
        ),
        Row(
            "long-schedule",
            "much longer training helps BoT50 more than R50 (Table 2, section 4.1)",
            _nuclei_setting("4 and 16 epochs", "1024 px, 12, 36 and 72 epochs"),
            (
                Effect(
                    "16 epochs: BoT50 - R50",
                    ("nuclei BoT50 x4",),
                    ("nuclei R50 x4",),
                    _SIZES,
                    {"mask_AP": "1.2 (36 epochs), 0.8 (72)", "box_AP": "1.5 (36 epochs), 0.9 (72)"},
                ),
                _grows(
                    "gain after 16 epochs - after 4",
                    _BASE,
                    ("nuclei R50 x4", "nuclei BoT50 x4"),
                    "0.9 (36 - 12 epochs), 0.5 (72 - 12)",
                ),
            ),
        ),
        Row(
            "scale",
            "strong scale jitter helps BoT50 more (Table 3, section 4.2)",
            f"{_nuclei_setting(papers='1024 px, 72 epochs')} The jitter alone changed.",
            tuple(
                _grows(
                    f"gain with jitter {low} to 2.0 - with 0.8 to 1.25",
                    _BASE,
                    (f"nuclei R50 jitter {low}", f"nuclei BoT50 jitter {low}"),
                    paper,
                )
                for low, paper in ((0.5, ""), (0.1, "0.7"))
            ),
        ),
        Row(
            "image-size",
            "larger images help BoT50 more (Table 8, section 4.5)",
            f"{_nuclei_setting(papers='1024 and 1280 px, jitter 0.1 to 2.0, 72 epochs')} At 128 and 512 px anchors "
            "and the crops of ground-truth masks scale with the image.",
            (
                Effect("128 px: BoT50 - R50", ("nuclei BoT50 128 px",), ("nuclei R50 128 px",), _SIZES),
                Effect("512 px: BoT50 - R50", ("nuclei BoT50 512 px",), ("nuclei R50 512 px",), _SIZES),
                _grows("gain at 256 px - at 128 px", ("nuclei R50 128 px", "nuclei BoT50 128 px"), _BASE),
                _grows(
                    "gain at 512 px - at 256 px",
                    _BASE,
                    ("nuclei R50 512 px", "nuclei BoT50 512 px"),
                    "0.2 (1280 - 1024 px)",
                ),
            ),
        ),
        Row(
            "classification",
            "BoT50 is a little better than R50 on ImageNet, BoT-S1-50 more so (section 4.7)",
            f"Photographs: {_PHOTOS_SETTING} {_CIFAR_SETTING} What the stride alone does and the kinds of positions on "
            "CIFAR-10 are no claims of the paper for ImageNet: they are here to read the others with.",
            (
                Effect("photos, stride 2: BoT50 - R50", ("photos BoT50",), ("photos R50",), paper={"top1": "0.2"}),
                Effect(
                    "photos, stride 1: BoT-S1-50 - R50 with its c5 dilated",
                    ("photos BoT-S1-50",),
                    ("photos R50 stride 1",),
                ),
                Effect(
                    "photos, unequal strides: BoT-S1-50 - R50",
                    ("photos BoT-S1-50",),
                    ("photos R50",),
                    paper={"top1": "0.9"},
                ),
                Effect("photos, the stride alone: R50 at 1 - R50 at 2", ("photos R50 stride 1",), ("photos R50",)),
                Effect("CIFAR-10: BoT - R", ("CIFAR BoT",), ("CIFAR R",)),
                Effect("CIFAR-10: both - position alone", ("CIFAR BoT",), ("CIFAR BoT position",)),
                Effect("CIFAR-10: both - content alone", ("CIFAR BoT",), ("CIFAR BoT content",)),
                Effect("CIFAR-10: both - absolute", ("CIFAR BoT",), ("CIFAR BoT absolute",)),
            ),
        ),
        Row(
            "listing",
            "the paper's layer is better than the widely copied listing (one head, no scaling, a transposed absolute "
            "position term): ours, the paper does not know the listing",
            f"Photographs: {_PHOTOS_SETTING} {_CIFAR_SETTING}",
            (
                Effect("photos: the paper's - the listing", ("photos BoT-S1-50",), ("photos BoT-S1-50 listing",)),
                Effect("CIFAR-10: the paper's - the listing", ("CIFAR BoT",), ("CIFAR BoT listing",)),
                Effect(
                    "CIFAR-10: the paper's - the listing, 4 heads each", ("CIFAR BoT",), ("CIFAR BoT listing, 4 heads",)
                ),
            ),
        ),
    )
}
