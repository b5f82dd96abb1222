"""Images of a data set as an exported network takes them, prepared as for `botformer evaluate`."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from botformer.create import Loaded
from botformer.create.tile_and_flip import with_tile
from botformer.data.classification.batches import evaluation_batches
from botformer.data.classification.dataset import open_classification_dataset
from botformer.data.detection.batches import detection_evaluation_batches
from botformer.data.detection.layouts import open_detection_dataset
from botformer.data.detection.match_categories import match_categories
from botformer.data.loader import EvaluationLoader
from botformer.errors import InputError
from botformer.recipes.schema import DetectionImages, Images

Batches = EvaluationLoader[Any]
Inputs = dict[str, np.ndarray]


def prepared_batches(
    loaded: Loaded, config: Mapping[str, Any], data: str, split: str, at_most: int, workers: int
) -> tuple[Batches, list[tuple[int, str]]]:
    """The images of one split, each a batch of its own, and the categories of a detector's data.

    Args:
        loaded: says how images are prepared.
        config: of the exported network.
        split: "train" or "validation".
        at_most: images, evenly spread; 0: all.

    Raises:
        InputError: data that do not fit the network, or a network exported for images of another size.
    """
    model_config = loaded.model_config
    if model_config["task"] == "classification":
        images = Images(**model_config["images"])
        _check_size(config, images.size)
        dataset = open_classification_dataset(data, split).relabelled(model_config["class_names"], "the network")
        return evaluation_batches(dataset, images, 1, workers, at_most=at_most), []
    images = with_tile(DetectionImages(**model_config["images"]), None)
    _check_size(config, images.canvas)
    known = [(number, name) for number, name in model_config["categories"]]
    keypoints = model_config["detector"] == "keypoint_rcnn"
    objects = open_detection_dataset(data, split, keypoints, images.max_bad_records)
    objects = match_categories(objects, known, "the network")
    categories = [(category.id, category.name) for category in objects.categories]
    return detection_evaluation_batches(objects, images, 1, workers, at_most=at_most), categories


def prepared_inputs(config: Mapping[str, Any], batches: Batches) -> Iterator[Inputs]:
    """What the network is given for each image, or each of its tiles, by the names of its inputs."""
    for batch in batches:
        sizes = [size for target in batch.get("targets", ()) for size in target.get("tile_sizes", (target["size"],))]
        for place, image in enumerate(batch["images"]):
            yield inputs_of(config, image, sizes[place] if sizes else None)


def inputs_of(config: Mapping[str, Any], image: Tensor, size: tuple[int, int] | None = None) -> Inputs:
    """An image (C, H, W), uint8 or floats in 0..1, as the exported network takes it.

    Args:
        size: height and width of the image on its canvas, which a detector is told.
    """
    pixels = image.float() if image.is_floating_point() else image.float() / 255
    inputs = {"pixels": pixels[None].contiguous().numpy()}
    if size is not None:
        inputs["sizes"] = np.array([[int(side) for side in size]], dtype=np.int64)
    # A network for so many images per call gets the image as often.
    repeats = {row["name"]: row["shape"][0] for row in config["inputs"] if isinstance(row["shape"][0], int)}
    return {name: np.repeat(array, repeats.get(name, 1), axis=0) for name, array in inputs.items()}


def _check_size(config: Mapping[str, Any], side: int) -> None:
    """Raise `InputError` where the network was exported for other images than it is evaluated on."""
    shape = next(row["shape"] for row in config["inputs"] if row["name"] == "pixels")
    fixed = [length for length in shape[2:] if isinstance(length, int)]
    if any(length != side for length in fixed):
        raise InputError(
            f"the network was exported for images of {'x'.join(map(str, reversed(fixed)))} px, and it is evaluated on "
            f"squares of {side} px, so that int8 cannot be measured; export it without --size"
        )
