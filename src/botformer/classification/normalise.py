"""uint8 pictures to what the network sees. ImageNet's statistics, which torchvision's and timm's weights expect."""

import torch
from torch import Tensor

from botformer.recipes.schema import IMAGENET_MEAN, IMAGENET_STD


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> float32, per channel (value / 255 - mean) / std; on the device of the input."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None] * 255
    scale = 1 / (torch.tensor(IMAGENET_STD, device=images.device)[:, None, None] * 255)
    return (images - mean) * scale
