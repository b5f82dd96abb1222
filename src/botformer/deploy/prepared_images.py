"""Images of a data set as an exported network takes them, prepared as for `botformer evaluate`."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from botformer.create import Loaded
from botformer.create.networks import canvas_of
from botformer.create.tile_and_flip import with_tile
from botformer.data.classification.batches import evaluation_batches
from botformer.data.classification.dataset import open_classification_dataset
from botformer.data.classification.transforms import evaluation_transform
from botformer.data.detection.batches import detection_evaluation_batches
from botformer.data.detection.layouts import open_detection_dataset
from botformer.data.detection.match_categories import match_categories
from botformer.data.detection.transforms import fitting_transform
from botformer.data.image_inputs import input_image
from botformer.data.loader import EvaluationLoader, evenly_spread
from botformer.errors import InputError
from botformer.predict.files import list_images
from botformer.recipes.schema import DetectionImages, Images

Batches = EvaluationLoader[Any]
Inputs = dict[str, np.ndarray]


def prepared_batches(
    loaded: Loaded, side: int | None, data: str, split: str, at_most: int, workers: int
) -> tuple[Batches, list[tuple[int, str]]]:
    """The images of one split, each a batch of its own, and the categories of a detector's data.

    Args:
        loaded: says how images are prepared.
        side: of the images in pixels, where it is not that of an evaluation.
        split: "train" or "validation".
        at_most: images, evenly spread; 0: all.

    Raises:
        InputError: data that do not fit the network.
    """
    model_config = loaded.model_config
    images = images_of_side(model_config, side)
    if isinstance(images, Images):
        dataset = open_classification_dataset(data, split).relabelled(model_config["class_names"], "the network")
        return evaluation_batches(dataset, images, 1, workers, at_most=at_most), []
    known = [(number, name) for number, name in model_config["categories"]]
    keypoints = model_config["detector"] == "keypoint_rcnn"
    objects = open_detection_dataset(data, split, keypoints, images.max_bad_records)
    objects = match_categories(objects, known, "the network")
    categories = [(category.id, category.name) for category in objects.categories]
    images, canvas = with_tile(images, None), _canvas(model_config, side)
    return detection_evaluation_batches(objects, images, 1, workers, at_most=at_most, canvas=canvas), categories


def images_of_side(model_config: Mapping[str, Any], side: int | None) -> Images | DetectionImages:
    """How images are prepared in an evaluation, or for a network that was exported for images of another side."""
    if model_config["task"] == "classification":
        images = Images(**model_config["images"])
        return replace(images, size=side or images.size)
    images = DetectionImages(**model_config["images"])
    return replace(images, test_size=side or images.test_size)


def _canvas(model_config: Mapping[str, Any], side: int | None) -> tuple[int, int]:
    """(height, width), of a detector."""
    return (side, side) if side else canvas_of(model_config)


def fixed_side(config: Mapping[str, Any]) -> int | None:
    """Of the images that an exported network takes, in pixels; None: it takes any. Raises `InputError` for oblongs."""
    shape = next(row["shape"] for row in config["inputs"] if row["name"] == "pixels")
    height, width = shape[2:]
    if height == width or not isinstance(height, int):
        return height if isinstance(height, int) else None
    raise InputError(
        f"the network was exported for images of {width}x{height} px, and it is evaluated on squares; export it with "
        "one --size"
    )


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
    pixels = image if image.is_floating_point() else image.float() / 255
    inputs = {"pixels": pixels[None].contiguous().numpy()}
    if size is not None:
        inputs["sizes"] = np.array([[int(side) for side in size]], dtype=np.int64)
    # A network for so many images per call gets the image as often.
    repeats = {row["name"]: row["shape"][0] for row in config["inputs"] if isinstance(row["shape"][0], int)}
    return {name: np.repeat(array, repeats.get(name, 1), axis=0) for name, array in inputs.items()}


def training_images(loaded: Loaded, side: int | None, data: str, at_most: int) -> list[Tensor]:
    """Some training images, evenly spread, as the network sees them: (C, h, w) floats in 0..1."""
    seen = []
    for inputs in prepared_inputs({"inputs": ()}, prepared_batches(loaded, side, data, "train", at_most, 0)[0]):
        pixels = torch.from_numpy(inputs["pixels"][0])
        height, width = inputs["sizes"][0] if "sizes" in inputs else pixels.shape[1:]
        seen.append(pixels[:, :height, :width])
    return seen


def images_in(folder: Path, model_config: Mapping[str, Any], side: int | None, at_most: int) -> list[Tensor]:
    """The same of the images in any folder.

    Raises:
        InputError: a folder without images, or one of them cannot be read.
    """
    images = images_of_side(model_config, side)
    files, seen = list_images([folder], folder), []
    for file in (files[place] for place in evenly_spread(len(files), at_most)):
        with input_image(file, 1, images.max_megapixels).open() as image:
            if isinstance(images, Images):
                seen.append(evaluation_transform(images)(image) / 255)
            else:
                transform = fitting_transform(image.size, _canvas(model_config, side))
                height, width = transform.extent
                seen.append(transform.draw(image)[:, :height, :width] / 255)
    return seen
