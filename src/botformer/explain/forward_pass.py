"""Feature maps of one image in a classifier or a detector, and what lies where on them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from botformer.backbone.attention_maps import AttentionLayer, attention_layers
from botformer.backbone.blocks import NonLocal
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.resnet import Classifier
from botformer.detection import Detector
from botformer.detection.float_types import weights_dtype
from botformer.detection.padding import PaddedImages, pad_images
from botformer.errors import InputError

Network = Classifier | Detector


@dataclass(frozen=True)
class CellMap:
    """A value for each cell of a feature map, over the image alone, without padding."""

    values: np.ndarray
    """(H, W) float."""
    stride_px: int
    """Pixels of the network's input between cells: cell (i, j) begins at pixel (i * stride_px, j * stride_px)."""


@contextmanager
def evaluation_mode(model: Network) -> Iterator[None]:
    """The model in evaluation mode, and after that as it was, module by module.

    No gradients are kept, but also within `torch.inference_mode` tensors are such that some can be taken.
    """
    training = [module for module in model.modules() if module.training]
    try:
        if training:
            model.eval()
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def feature_maps(model: Network, pixels: Tensor) -> dict[str, Tensor]:
    """c2 to c5 of one image (C, h, w), uint8 or floats in 0..1: {"c2": (1, channels, H, W), ...}, padding included."""
    if isinstance(model, Classifier):
        return model.stages(model.preprocess(_on_device(model, pixels)[None]))
    images, padding_mask = model.normalized(padded(model, pixels))
    more = {"padding_mask": padding_mask} if model.passes_padding_mask else {}
    return model.backbone(images.to(weights_dtype(model.backbone)), **more)


def padded(model: Detector, pixels: Tensor) -> PaddedImages:
    """One image on the detector's canvas.

    Raises:
        InputError: it is larger than that.
    """
    (image,) = model.preprocess([_on_device(model, pixels)])
    if image.shape[1] > model.test_size[0] or image.shape[2] > model.test_size[1]:
        raise InputError(
            f"the image is {image.shape[2]}x{image.shape[1]} px, larger than the detector's canvas of "
            f"{model.test_size[1]}x{model.test_size[0]} (width x height); botformer.explain.see(model_config, image) "
            "prepares images"
        )
    return pad_images([image], model.test_size)


def layers_of(model: Network, pixels: Tensor) -> list[AttentionLayer]:
    """The attention layers of the network, in the order they run, with the maps that they saw."""
    with evaluation_mode(model):
        layers = attention_layers(model, lambda: feature_maps(model, pixels))
    if not layers:
        raise InputError(
            "the network has no attention layers (a resnet row); grad_cam and grad_cam_of_detection explain it"
        )
    return layers


def attends(model: Network) -> bool:
    """Whether the network has attention layers."""
    return any(isinstance(module, MHSA2d | NonLocal) for module in model.modules())


def image_cells(pixels: Tensor, stride_px: int) -> tuple[int, int]:
    """(height, width) in cells of the image (C, h, w) on a map; what is beyond is padding."""
    return -(-pixels.shape[1] // stride_px), -(-pixels.shape[2] // stride_px)


def cell_of(pixels: Tensor, stride_px: int, place_yx: tuple[float, float]) -> tuple[int, int]:
    """The cell that a place (y, x) in pixels lies in.

    Raises:
        InputError: the place is not on the image.
    """
    height, width = pixels.shape[1:]
    y, x = place_yx
    if not (0 <= y <= height and 0 <= x <= width):
        raise InputError(f"({y:g}, {x:g}) (y, x) lies outside the image, which the network sees at {width}x{height} px")
    cells = image_cells(pixels, stride_px)
    return min(int(y // stride_px), cells[0] - 1), min(int(x // stride_px), cells[1] - 1)


def stride_of(layer: AttentionLayer) -> int:
    assert layer.stride_px is not None, "networks of this package have their attention in blocks"
    return layer.stride_px


def c5_stride(model: Network) -> int:
    strides = model.strides if isinstance(model, Classifier) else model.backbone.strides
    assert isinstance(strides, dict)
    return strides["c5"]


def _on_device(model: Network, pixels: Tensor) -> Tensor:
    return pixels.to(next(model.parameters()).device)
