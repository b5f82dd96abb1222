"""What a detector asks of a backbone, and timm's networks made to answer."""

import inspect
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from botformer.errors import InputError

STAGES = ("c2", "c3", "c4", "c5")


class TimmFeatures(nn.Module):
    """A network of `timm.create_model(..., features_only=True)` whose last four maps are c2 to c5."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        channels, strides = network.feature_info.channels(), network.feature_info.reduction()
        if len(channels) < len(STAGES):
            raise InputError(f"a detector needs four maps, c2 to c5, and this timm network gives {len(channels)}")
        self.network = network
        self.channels = dict(zip(STAGES, channels[-len(STAGES) :], strict=True))
        self.strides = dict(zip(STAGES, strides[-len(STAGES) :], strict=True))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, h, w) -> {"c2": (B, channels, h/stride, w/stride), ...}."""
        return dict(zip(STAGES, self.network(images)[-len(STAGES) :], strict=True))


def adapt_backbone(backbone: nn.Module, needed: Iterable[str]) -> nn.Module:
    """The backbone itself, or timm's features as named maps.

    A backbone maps images (B, 3, h, w) to a dict of feature maps, and has dicts `channels` and `strides` that say the
    width of each and the pixels between its cells. If its `forward` takes `padding_mask` (B, h, w), it gets one.

    Raises:
        InputError: it says neither, or lacks a map that is needed.
    """
    if hasattr(backbone, "feature_info"):
        backbone = TimmFeatures(backbone)
    for attribute in ("channels", "strides"):
        said = getattr(backbone, attribute, None)
        if not isinstance(said, dict):
            raise InputError(
                f"the backbone {type(backbone).__name__} has no dict '{attribute}' (map name -> number), which says "
                "what the detector builds on; wrap it in a module with 'channels' and 'strides'"
            )
        missing = [name for name in needed if name not in said]
        if missing:
            raise InputError(f"the backbone's '{attribute}' lack {', '.join(missing)}; they have {', '.join(said)}")
    return backbone


def accepts_padding_mask(backbone: nn.Module) -> bool:
    return "padding_mask" in inspect.signature(backbone.forward).parameters
