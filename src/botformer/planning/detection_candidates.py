"""Recipes for a detector that may suit a training set, by written rules: canvas, anchors, tiles, heads, augmentation.

Everything that is a matter of measurement stands in two tables, `_NETWORKS` and `_Rules`; the rest follows from the
objects' boxes. Lengths are pixels of the canvas unless they say otherwise.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from botformer.backbone.variants import find_row
from botformer.create.networks import create_backbone
from botformer.data.detection.dataset import DetectionDataset
from botformer.data.detection.layouts import has_shapes
from botformer.errors import InputError
from botformer.planning.anchor_sizes import anchor_ratios, anchor_sizes, levels_in_use
from botformer.planning.candidate import Candidate, merged
from botformer.planning.object_statistics import ObjectStatistics, object_statistics
from botformer.recipes.detector_settings import LEVELS, SMALL, Kind, Settings
from botformer.recipes.schema import (
    SMALLEST_TILE_PX,
    ClassificationRecipe,
    DetectionImages,
    DetectionRecipe,
    Model,
    Optimizer,
    Run,
)
from botformer.weights.imagenet import IMAGENET

log = logging.getLogger("botformer.planning")

_SLIM = replace(SMALL, keypoint_convolutions=4, keypoint_channels=128)
_FULL = Settings(norm_momentum=0.1)


@dataclass(frozen=True)
class _Network:
    """A network, and what can be asked of it."""

    model: str
    on_gpu: bool
    pretrained: bool
    """Starts from ImageNet weights. The others are for where none can be had."""
    canvas: int
    """Largest side of what a training step shows of an image."""
    test_canvas: int
    """Largest side of the whole image, or of a tile, in evaluation."""
    cells: float
    """Strides of the finest map that a small object (the smallest tenth apart) should measure."""
    batch_pixels: int
    """Pixels of a batch of canvases, about; 8 images at most on a CPU."""
    learning_rate: float
    images_seen: int
    """Training images, repetitions counted, from which on it is worth its time..."""
    passes: int
    """... or so many passes over them, whichever is more; of a large set as if it had `_Rules.most_passes_over`
    images."""
    settings: Settings


# Best first. docs/decisions/0058 says how the figures were found; nothing else depends on them.
# fmt: off
_MEGAPIXEL = 1024 * 1024
_NETWORKS = (
    #        model             GPU    pretr. canvas test  cells  batch              rate  images passes heads
    _Network("botnet50",       True,  True,  1024, 1536, 5.0, 16 * _MEGAPIXEL,   5e-4, 20_000, 16, _FULL),
    _Network("resnet50_half",  True,  True,  1024, 1536, 5.0, 16 * _MEGAPIXEL, 1.5e-3,  6_000,  8, _FULL),
    _Network("resnet50_half",  True,  True,   640, 1024, 4.0,  8 * _MEGAPIXEL, 1.5e-3,  2_000,  4, _FULL),
    _Network("botnet_mini",    True,  False,  512,  768, 5.0,  8 * _MEGAPIXEL,   2e-3,  4_000,  8, _SLIM),
    _Network("botnet_nano",    True,  False,  256,  640, 5.0,  2 * _MEGAPIXEL,   2e-3,  1_000,  2, _SLIM),
    _Network("botnet50",       False, True,  1024, 1024, 5.0,  2 * _MEGAPIXEL,   5e-4, 50_000, 16, _FULL),
    _Network("botnet50_half",  False, True,   640, 1024, 4.0,  2 * _MEGAPIXEL, 1.5e-3, 10_000, 12, _SLIM),
    _Network("resnet50_half",  False, True,   640, 1024, 4.0,  1 * _MEGAPIXEL, 1.5e-3,  6_000,  8, _SLIM),
    _Network("resnet50_half",  False, True,   512, 1024, 4.0,  1 * _MEGAPIXEL, 1.5e-3,  4_000,  6, _SLIM),
    _Network("resnet50_half",  False, True,   384, 1024, 4.0,  1 * _MEGAPIXEL, 1.5e-3,  1_500,  4, _SLIM),
    _Network("resnet50_half",  False, True,   256,  640, 3.0,  1 * _MEGAPIXEL, 1.5e-3,    400,  2, _SLIM),
    _Network("botnet_mini",    False, False,  320,  512, 5.0,  1 * _MEGAPIXEL,   2e-3,  8_000, 12, _SLIM),
    _Network("botnet_mini",    False, False,  224,  512, 5.0,  1 * _MEGAPIXEL,   2e-3,  3_000,  6, _SLIM),
    _Network("botnet_nano",    False, False,  128,  320, 4.0,  1 * _MEGAPIXEL,   2e-3,    800,  2, _SLIM),
)
# fmt: on


class _Rules:
    """Figures that hold for every network."""

    small, large = 0.1, 0.95
    """Quantiles of the objects' sizes that stand for small and large ones."""
    enlarged, enlarged_anyway = 4.0, 2.0
    """Images are enlarged by no more than this: where small objects need it, and where there is room for it."""
    fits = 0.8
    """Large objects measure no more than this fraction of the largest canvas."""
    part, smallest_part = 2.5, 192
    """Training shows parts of images so many times as wide as large objects, and at least so many pixels, where that is
    no more than half of an image's side."""
    few, around_objects = 4.0, 0.75
    """Where a part holds fewer objects than this, so many of the parts are laid around one of them."""
    jitter = (0.6, 1.5)
    """Scale in training, relative to that in evaluation..."""
    least_scale = 0.75
    """... but never so small that more padding than this leaves is seen."""
    loaded_rate = 0.2
    """Rate of loaded weights to that of new ones."""
    frozen_below = 8
    """Images per batch under which BatchNorm of a pretrained convolutional backbone stays as it was calibrated."""
    weight_decay = 0.05
    clip_norm = 5.0
    full = 3
    """A row is fully trained after so many times what it needs."""
    most_passes_over = 1_500
    """Images beyond which a data set need not be seen any more often than one of this size."""
    pasted, pasted_up_to = 0.5, 20
    """Probability of copy-paste, where images have up to so many objects in the middle: beyond there are enough."""
    rare = 0.2
    """A class in less than this fraction of the images that the average class is in makes sampling balanced."""
    mask_crop_fits = 112.0
    """Objects up to this size keep their masks at 56 cells a side, larger ones at 112."""


_STEP = 32
"""Canvases are multiples of it, the coarsest stride."""


def detection_candidates(
    dataset: DetectionDataset,
    detector: Kind,
    has_gpu: bool,
    pretrained: Callable[[str], bool],
    model: str = "",
    size: int = 0,
) -> list[Candidate]:
    """Recipes for a training set, best first; the last needs least.

    Args:
        dataset: the training images, opened with key points for a `keypoint_rcnn`.
        detector: a `mask_rcnn` becomes a `faster_rcnn` where no object has a shape, and the log says so.
        has_gpu: whether training runs on a GPU.
        pretrained: whether ImageNet weights for a row can be had.
        model: the row that the user wants; "": any.
        size: side in pixels of the canvas that the user wants, which then shows whole images; 0: any.

    Raises:
        InputError: there are no objects.
    """
    if not dataset.objects:
        raise InputError(f"{dataset.where} has no objects to learn from: {dataset.why_no_objects}")
    if detector == "mask_rcnn" and not has_shapes(dataset):
        log.warning("%s: objects have boxes, but no shapes: a faster_rcnn, which finds boxes alone", dataset.where)
        detector = "faster_rcnn"
    seen = object_statistics(dataset)
    networks = [network for network in _NETWORKS if network.on_gpu == has_gpu]
    if model:
        loads = pretrained(model)
        networks = [replace(network, model=model) for network in networks if network.pretrained == loads]
    loadable = {network.model: network.pretrained and pretrained(network.model) for network in networks}
    usable = [network for network in networks if network.pretrained == any(loadable.values())]
    usable = [network for network in usable if loadable[network.model] or not network.pretrained]
    candidates: dict[ClassificationRecipe | DetectionRecipe, Candidate] = {}
    for network in usable:
        candidate = _candidate(network, dataset, detector, seen, size)
        # Of rows that have become the same the place is that of the last.
        candidates[candidate.recipe] = merged(candidate, candidates.pop(candidate.recipe, None))
    best_first = list(candidates.values())
    _say(dataset, best_first[0])
    return best_first


@dataclass(frozen=True)
class _Canvas:
    """How large a network sees an image."""

    size: int
    """Side of the canvas in training."""
    test_size: int
    """Side of the canvas in evaluation: of the whole image, or of a tile."""
    tile: int
    """Side of a tile in pixels of the file; 0: the whole image."""
    whole: float
    """Side of the whole image in evaluation, in tiles or not, of an image of median size."""

    def sizes(self, seen: ObjectStatistics) -> np.ndarray:
        """(objects,) sizes on the canvas in evaluation."""
        return seen.sizes_px * self.test_size / self.tile if self.tile else seen.sizes * self.test_size


def _canvas(network: _Network, stride: int, seen: ObjectStatistics, tiles: bool) -> _Canvas:
    """Whole images where small objects are legible on the canvas and large ones fill a good part of it; else parts of
    images, enlarged where that is needed, in training, and the whole image in evaluation; else, where that is more than
    the network can be shown, parts and tiles, if those can be had."""
    small, large = np.quantile(seen.sizes, (_Rules.small, _Rules.large)).tolist()
    legible = network.cells * stride
    needed = min(legible / small, _Rules.enlarged * seen.longest_px)
    most = min(network.canvas, _multiple(_Rules.enlarged_anyway * seen.longest_px))
    # Large objects must fit on what a step shows.
    whole = most if needed <= most else _multiple(max(most, min(needed, _Rules.fits * network.canvas / large)))
    # In tiles the scale is that of the file, not of the image: all tiles have the same side in its pixels.
    small_px, large_px = np.quantile(seen.sizes_px, (_Rules.small, _Rules.large)).tolist()
    scale = min(legible / small_px, _Rules.enlarged, _Rules.fits * network.canvas / large_px)
    if min(whole, scale * seen.longest_px) <= network.test_canvas or not tiles:
        whole = min(whole, network.test_canvas)
        return _Canvas(_part(large * whole, whole, most), whole, 0, whole)
    whole = scale * seen.longest_px
    tile = max(SMALLEST_TILE_PX, round(network.test_canvas / scale))
    return _Canvas(_part(large_px * scale, whole, network.canvas), network.test_canvas, tile, whole)


@cache
def _strides(model: str) -> tuple[int, ...]:
    """Of c2..c5."""
    with torch.device("meta"):
        return tuple(create_backbone(model).strides.values())


def _part(large: float, whole: float, most: int) -> int:
    """Side of what a training step shows of images that are `whole` pixels wide, with objects of up to `large`."""
    part = max(_Rules.smallest_part, _multiple(_Rules.part * large))
    return min(part, most) if part <= whole / 2 else min(most, _multiple(whole))


def _candidate(
    network: _Network, dataset: DetectionDataset, detector: Kind, seen: ObjectStatistics, size: int
) -> Candidate:
    strides = _strides(network.model)
    attends = find_row(network.model).c5 == "attention"
    canvas = _canvas(network, strides[0], seen, tiles=detector != "keypoint_rcnn")
    if size:
        canvas = _Canvas(size, size, 0, size)
    sizes = canvas.sizes(seen)
    zoom = canvas.whole / canvas.size
    shown = float(np.median(seen.per_image)) * min(1.0, 1 / zoom**2)  # objects on a training canvas
    low, high = (round(scale * zoom, 2) for scale in _Rules.jitter)
    count = len(dataset)
    batch = max(1, min(2 ** int(math.log2(network.batch_pixels / canvas.size**2)), 16 if network.on_gpu else 8))
    batch = min(batch, count)
    images_seen = max(network.images_seen, network.passes * min(count, _Rules.most_passes_over))
    frozen = network.pretrained and not attends and batch < _Rules.frozen_below
    turned = seen.shows_no_up and detector != "keypoint_rcnn"
    recipe = DetectionRecipe(
        detector=detector,
        model=Model(
            network.model,
            weights=IMAGENET if network.pretrained else "",
            zero_gamma=network.pretrained,
            # A position counts cells, so that a whole image may be larger than the parts that training shows.
            tables="offset" if canvas.test_size != canvas.size else "interpolate",
            normalization="frozen" if frozen else "batch",
            norm_epsilon=1e-5 if network.pretrained else None,  # what the weights were trained with
        ),
        images=DetectionImages(
            size=canvas.size,
            test_size=canvas.test_size if canvas.test_size != canvas.size else 0,
            tile=canvas.tile,
            scale_jitter=(max(low, _Rules.least_scale), high),
            crop_around_object=_Rules.around_objects if zoom > 1 and shown < _Rules.few else 0.0,
            hflip=not seen.has_sides,
            rot90=turned,
            mask_crop=56 if np.quantile(sizes, 0.9) <= _Rules.mask_crop_fits else 112,
            copy_paste=_copy_paste(seen, detector),
            repeat_threshold=_repeat_threshold(seen),
        ),
        settings=_settings(network, sizes, seen, shown, turned),
        optimizer=Optimizer(
            "adamw",
            learning_rate=network.learning_rate,
            weight_decay=_Rules.weight_decay,
            clip_norm=_Rules.clip_norm,
            loaded_rate=_Rules.loaded_rate if network.pretrained else 1.0,
        ),
        run=Run(batch_size=batch),
    )
    return Candidate(recipe, _why(network, recipe), images_seen, _Rules.full * images_seen)


def _settings(network: _Network, sizes: np.ndarray, seen: ObjectStatistics, shown: float, turned: bool) -> Settings:
    strides = _strides(network.model)
    with_p6 = (*strides, 2 * strides[-1])
    top = 5 if levels_in_use(sizes, with_p6) == 5 else 4
    most = int(seen.per_image.max())
    settings = network.settings
    return replace(
        settings,
        levels=LEVELS[:top],
        anchor_sizes=anchor_sizes(sizes, with_p6[:top]),
        anchor_ratios=anchor_ratios(seen.ratios, turned),
        # A quarter of the samples at most are objects: four per object that a step shows.
        roi_samples=max(settings.roi_samples, min(4 * settings.roi_samples, _multiple(4 * shown))),
        rpn_post_nms_top_n=max(settings.rpn_post_nms_top_n, min(2 * most, 2000)),
        max_detections=max(settings.max_detections, min(math.ceil(1.5 * most / 50) * 50, 1000)),
    )


def _copy_paste(seen: ObjectStatistics, detector: Kind) -> float:
    wanted = detector == "mask_rcnn" and np.median(seen.per_image) <= _Rules.pasted_up_to and len(seen.per_image) > 1
    return _Rules.pasted if wanted else 0.0


def _repeat_threshold(seen: ObjectStatistics) -> float:
    """The average class's fraction of the images, where another class is far rarer."""
    average = float(seen.class_frequencies.mean())
    return round(average, 4) if seen.class_frequencies.min() < _Rules.rare * average else 0.0


def _why(network: _Network, recipe: DetectionRecipe) -> str:
    images = recipe.images
    shown = f"whole images of {images.size} px"
    if images.tile:
        shown = f"parts of {images.size} px, tiles of {images.tile} px in evaluation"
    elif images.canvas != images.size:
        shown = f"parts of {images.size} px, whole images of {images.canvas} px in evaluation"
    weights = "ImageNet weights" if network.pretrained else "random weights"
    return f"{network.model}, {weights}; {shown}"


def _say(dataset: DetectionDataset, best: Candidate) -> None:
    """What the data decided that somebody may want to decide otherwise."""
    assert isinstance(best.recipe, DetectionRecipe)
    images, said = best.recipe.images, []
    if images.tile:
        said.append(
            "small objects need the scale of the file: evaluation and prediction cut larger images into tiles "
            "(images.tile; --tile 0 switches it off)"
        )
    if images.rot90:
        said.append("objects show no up and no down: images are turned by quarters too (images.rot90)")
    if images.repeat_threshold:
        said.append(
            f"some classes are rare: images of classes in less than {images.repeat_threshold:.1%} of the images are "
            "drawn more often (images.repeat_threshold)"
        )
    if images.copy_paste:
        said.append(f"objects are pasted into other images (images.copy_paste {images.copy_paste:g})")
    if said:
        log.info("%s: %s", dataset.where, "; ".join(said))


def _multiple(pixels: float) -> int:
    """Rounded up to a multiple of the coarsest stride."""
    return math.ceil(pixels / _STEP - 1e-6) * _STEP
