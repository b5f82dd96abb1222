"""BatchNorm as pyramid and heads use it."""

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from botformer.recipes.detector_settings import Settings


def make_norm(channels: int, settings: Settings) -> nn.Module:
    """BatchNorm over (n, channels, h, w) in the chosen mode."""
    if settings.normalization == "frozen":
        return FrozenBatchNorm2d(channels, eps=settings.norm_epsilon)
    kind = nn.SyncBatchNorm if settings.normalization == "sync" else nn.BatchNorm2d
    return kind(channels, eps=settings.norm_epsilon, momentum=settings.norm_momentum)
