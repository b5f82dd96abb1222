"""What a detector asks of a backbone, and timm's networks made to answer."""

import inspect
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from botformer.errors import InputError

STAGES = ("c2", "c3", "c4", "c5")
_WRAPPED = ("_orig_mod", "module")
"""The names that PyTorch's wrappers give the one network in them."""


class TimmFeatures(nn.Module):
    """A network of `timm.create_model(..., features_only=True)` whose last four maps are c2 to c5."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        wrapped = unwrapped(network)
        if not hasattr(wrapped.feature_info, "channels"):
            raise InputError(
                f"the timm network {type(wrapped).__name__} gives logits, not maps; create it with "
                "timm.create_model(..., features_only=True)"
            )
        channels, strides = wrapped.feature_info.channels(), wrapped.feature_info.reduction()
        if len(channels) < len(STAGES):
            raise InputError(f"a detector needs four maps, c2 to c5, and this timm network gives {len(channels)}")
        self.network = network
        self.channels = dict(zip(STAGES, channels[-len(STAGES) :], strict=True))
        self.strides = dict(zip(STAGES, strides[-len(STAGES) :], strict=True))
        self._channels_last = getattr(wrapped, "output_fmt", "NCHW") == "NHWC"  # of Swin and its kin
        self.in_chans = next((m.in_channels for m in wrapped.modules() if isinstance(m, nn.Conv2d)), 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, C, h, w) -> {"c2": (B, channels, h/stride, w/stride), ...}."""
        maps = self.network(images)[-len(STAGES) :]
        return dict(zip(STAGES, (m.permute(0, 3, 1, 2) for m in maps) if self._channels_last else maps, strict=True))


def adapt_backbone(backbone: nn.Module, needed: Iterable[str]) -> nn.Module:
    """The backbone itself, or timm's features as named maps.

    A backbone maps images (B, C, h, w) to a dict of feature maps, and has dicts `channels` and `strides` that say the
    width of each and the pixels between its cells. If its `forward` takes `padding_mask` (B, h, w), it gets one. A
    number `in_chans`, if there is one, says what C is. It may be wrapped (see `unwrapped`).

    Raises:
        InputError: it says neither, or lacks a map that is needed.
    """
    if hasattr(unwrapped(backbone), "feature_info"):
        backbone = TimmFeatures(backbone)
    for attribute in ("channels", "strides"):
        said = getattr(unwrapped(backbone), attribute, None)
        if not isinstance(said, dict):
            raise InputError(
                f"the backbone {type(backbone).__name__} has no dict '{attribute}' (map name -> number), which says "
                "what the detector builds on; wrap it in a module with 'channels' and 'strides'"
            )
        missing = [name for name in needed if name not in said]
        if missing:
            raise InputError(f"the backbone's '{attribute}' lack {', '.join(missing)}; they have {', '.join(said)}")
    return backbone


def unwrapped(network: Any) -> Any:
    """The network in the wrappers of `torch.compile`, data parallelism and averaging, which call it and say nothing of
    it themselves."""
    while isinstance(network, nn.Module):
        inner = dict(network.named_children())
        wrapped = [inner[name] for name in _WRAPPED if len(inner) == 1 and name in inner]
        if not wrapped:
            break
        network = wrapped[0]
    return network


def accepts_padding_mask(backbone: nn.Module) -> bool:
    """Whether `forward` takes a `padding_mask`, itself or as keywords that it hands on to a network that does.

    Raises:
        InputError: there is a backbone inside that takes one, but it would not get it.
    """
    named, any_keyword = _takes(backbone.forward)
    if named:
        return True
    if any_keyword:
        # A `forward` that was replaced by a wrapper of unknown signature is still that of its class.
        return _takes(type(backbone).forward)[0] or any(accepts_padding_mask(child) for child in backbone.children())
    inside = [child for child in backbone.modules() if _is_backbone(child) and _takes(child.forward)[0]]
    if inside:
        raise InputError(
            f"{type(backbone).__name__} does not hand the padding mask on to the {type(inside[0]).__name__} in it, "
            "whose attention would look at the padding of images; give its forward a 'padding_mask=None' and pass that "
            "on, or build the detector with padding_mask=False"
        )
    return False


def _is_backbone(module: nn.Module) -> bool:
    return all(isinstance(getattr(module, attribute, None), dict) for attribute in ("channels", "strides"))


def _takes(forward: Any) -> tuple[bool, bool]:
    """Whether it has a parameter `padding_mask`, and whether it takes any keyword."""
    try:
        parameters = inspect.signature(forward).parameters
    except (TypeError, ValueError):  # of compiled code, such as TorchScript's
        return False, False
    kinds = {parameter.kind for parameter in parameters.values()}
    return "padding_mask" in parameters, inspect.Parameter.VAR_KEYWORD in kinds
