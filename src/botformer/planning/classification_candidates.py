"""Classifiers to choose from, best first, by written rules from what the images are.

THE TABLES are the place to tune. `epochs` is how many passes a row needs to be worth its time: the planner takes the
first row that gets so many within the minutes. docs/decisions/0058 says how the figures were found.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from botformer.planning.candidate import Candidate, merged
from botformer.planning.look_at_data import ImageFacts
from botformer.recipes.schema import ClassificationRecipe, Images, Model, Optimizer, Run, Schedule
from botformer.weights.imagenet import IMAGENET


@dataclass(frozen=True)
class _Row:
    model: str
    px: int
    epochs: float
    least_images: int
    """Training images below which a row further down is better: attention starts from random weights."""
    why: str


@dataclass(frozen=True)
class _Start:
    """What goes with the weights that a network starts from."""

    weights: str
    learning_rate: float
    loaded_rate: float
    least_area: float
    least_px: int
    """Smaller images are enlarged to this."""


# fmt: off
_PRETRAINED = _Start(IMAGENET, learning_rate=1e-3, loaded_rate=0.2, least_area=0.35, least_px=96)
_RANDOM = _Start("",           learning_rate=2e-3, loaded_rate=1.0, least_area=0.35, least_px=32)
_PRETRAINED_ROWS = (
    #    model            px  epochs  images
    _Row("botnet_s1_50",  224, 12.0,  1_000, "full width, attention at stride 1"),
    _Row("botnet50_half", 224, 12.0,  1_000, "half width, attention"),
    _Row("botnet50_half", 160,  8.0,  1_000, "half width, attention"),
    _Row("resnet50_half", 160,  5.0,      0, "half width, nothing new but the head"),
    _Row("resnet50_half", 128,  1.5,      0, "half width, nothing new but the head"),
    _Row("resnet50_half",  96,  0.5,      0, "the fastest that starts from real weights"),
)
_RANDOM_ROWS = (
    _Row("botnet_s1_50",  224, 120.0,     0, "full width, from random weights"),
    _Row("botnet_mini",   128,  40.0,     0, "small, from random weights"),
    _Row("botnet_mini",    96,  20.0,     0, "small, from random weights"),
    _Row("botnet_mini",    64,   8.0,     0, "small, from random weights"),
    _Row("botnet_nano",    48,   0.5,     0, "the fastest, from random weights"),
)
# fmt: on

_WEIGHT_DECAY, _LABEL_SMOOTHING = 0.05, 0.1
_BATCH = 32
_EPOCH_OF = (400, 5_000)
"""Epochs of a row are counted as if there were at least and at most so many images: below, a pass is a few steps;
above, one teaches more than a pass over few images does."""
_FULL = 3
"""A row is fully trained after so many times what it needs."""
_PARTS_OF_TINY_SET = 4
"""A small set gives at least so many batches per epoch, as long as they have `_LEAST_BATCH` images for BatchNorm."""
_LEAST_BATCH = 8
_LONG_IMAGES = 0.2
"""Letterbox where this fraction of the images is at least 1:2: a crop of such an image shows half of it at most."""
_IMBALANCED, _BALANCE = 3.0, 0.5
"""Where the largest class has so many times the images of the smallest, classes are drawn by the square root of what
they have: between what the data say (0) and all alike (1)."""


def classification_candidates(
    facts: ImageFacts, pretrained: Callable[[str], bool], model: str = "", size: int = 0
) -> list[Candidate]:
    """Candidates for these images, best first; there is always one.

    Args:
        pretrained: whether ImageNet weights for the row of that name are within reach.
        model: the row that the user wants; "": any.
        size: the side in pixels that the user wants; 0: any.
    """
    enough = [row for row in _PRETRAINED_ROWS if facts.images >= row.least_images]
    rows = [(row, _PRETRAINED) for row in enough if pretrained(model or row.model)]
    rows = rows or [(row, _RANDOM) for row in _RANDOM_ROWS]
    candidates: dict[tuple[str, int], Candidate] = {}
    for row, start in rows:
        name, px = model or row.model, size or _side(row.px, start.least_px, facts.shorter_px)
        why, images = row.why if not model else "as asked for", _images(row.epochs, facts)
        candidate = Candidate(_recipe(name, px, start, facts), why, images, _FULL * images)
        # Of rows that have become the same the place is that of the last.
        candidates[name, px] = merged(candidate, candidates.pop((name, px), None))
    return list(candidates.values())


def batch_size(images: int) -> int:
    """32; of small sets a power of two that gives four batches per epoch, at least 8; never more than there are."""
    fitting = 2 ** int(math.log2(max(images / _PARTS_OF_TINY_SET, 1)))
    return min(images, _BATCH, max(fitting, _LEAST_BATCH))


def is_imbalanced(facts: ImageFacts) -> bool:
    return facts.most > _IMBALANCED * facts.fewest


def is_long(facts: ImageFacts) -> bool:
    return facts.long >= _LONG_IMAGES


def _side(px: int, least: int, shorter_px: int) -> int:
    """No larger than the images are (a multiple of 32 px), for enlarging shows nothing new; but at least `least`."""
    if not shorter_px:
        return px
    return min(px, max(least, 32 * math.ceil(shorter_px / 32)))


def _images(epochs: float, facts: ImageFacts) -> int:
    least, most = _EPOCH_OF
    return round(epochs * min(max(facts.images, least), most))


def _recipe(model: str, px: int, start: _Start, facts: ImageFacts) -> ClassificationRecipe:
    return ClassificationRecipe(
        model=Model(model, weights=start.weights),
        images=Images(
            size=px,
            fit="letterbox" if is_long(facts) else "crop",
            least_area=start.least_area,
            hflip=not facts.has_sides,
            balance=_BALANCE if is_imbalanced(facts) else 0.0,
        ),
        optimizer=Optimizer(
            "adamw",
            learning_rate=start.learning_rate,
            loaded_rate=start.loaded_rate,
            weight_decay=_WEIGHT_DECAY,
            label_smoothing=_LABEL_SMOOTHING,
        ),
        schedule=Schedule(),
        run=Run(batch_size=batch_size(facts.images)),
    )
