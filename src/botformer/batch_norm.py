"""BatchNorm as backbone, pyramid and heads use it."""

from typing import Protocol

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from botformer.recipes.model_options import Normalization

EPSILON, MOMENTUM = 1e-5, 0.1


class NormOptions(Protocol):
    """The fields that `ModelOptions` and a detector's `Settings` share."""

    @property
    def normalization(self) -> Normalization: ...
    @property
    def norm_epsilon(self) -> float | None: ...
    @property
    def norm_momentum(self) -> float | None: ...


def make_norm(channels: int, options: NormOptions, gamma: float = 1.0) -> nn.Module:
    """BatchNorm over (B, channels, H, W) in the chosen mode, its scale starting at `gamma`.

    "batch": statistics of the batch in training; "sync": of the batches of all processes together; "frozen": fixed
    statistics and affine, whose momentum has no meaning, and whose scale starts at 1: at a `gamma` of 0 that nothing
    trains, what comes before it would never learn (`init_convolutions` lets that start at 0). Epsilon and momentum that
    are None are PyTorch's.
    """
    epsilon = EPSILON if options.norm_epsilon is None else options.norm_epsilon
    momentum = MOMENTUM if options.norm_momentum is None else options.norm_momentum
    if options.normalization == "frozen":
        norm, gamma = FrozenBatchNorm2d(channels, eps=epsilon), 1.0
    else:
        kind = nn.SyncBatchNorm if options.normalization == "sync" else nn.BatchNorm2d
        norm = kind(channels, eps=epsilon, momentum=momentum)
    assert isinstance(norm.weight, Tensor)
    nn.init.constant_(norm.weight, gamma)
    return norm
