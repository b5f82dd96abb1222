"""How a trained network looks at images, as its model config says and a caller may change: in tiles, in a mirror."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from botformer.data.detection.keypoints import flip_indices
from botformer.detection.flip_augmentation import Flip
from botformer.recipes.schema import DetectionImages

log = logging.getLogger("botformer")


def with_tile(images: DetectionImages, tile: int | None) -> DetectionImages:
    """With tiles of another side in pixels; 0: none; None: as the network was trained for, which the log says."""
    if tile is None and images.tile:
        log.info(
            "images larger than %d px are cut into tiles of that side, as this network was trained for "
            "(images.tile); --tile 0 switches it off",
            images.tile,
        )
    return images if tile is None else replace(images, tile=tile)


def flip_of(model_config: Mapping[str, Any]) -> Flip | None:
    """How to predict on mirror images too; None, with a warning, where the network was trained on images that were not
    flipped: mirrored, they would be unlike any that it has seen."""
    if not may_flip(model_config):
        return None
    pairs = model_config["images"].get("keypoint_pairs", ())
    return Flip(tuple(flip_indices(model_config.get("keypoint_names", ()), pairs)))


def may_flip(model_config: Mapping[str, Any]) -> bool:
    """Whether images were flipped in training; if not, the log says that --tta flip is left out."""
    images = model_config["images"]
    if images.get("augmentation") == "none":
        log.warning(
            "--tta flip is left out: this network was trained without flips (images.augmentation is none) and has seen "
            "no mirror images"
        )
        return False
    if not images.get("hflip", True):
        log.warning(
            "--tta flip is left out: this network was trained without flips (images.hflip is false), because a mirror "
            "image shows something else"
        )
        return False
    return True
