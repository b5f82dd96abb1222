"""BoTBlock: a BoT block as a layer for other people's networks."""

from collections.abc import Sequence
from typing import Literal

from botformer.backbone.blocks import ACTIVATIONS, Bottleneck, init_convolutions
from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError, unknown
from botformer.recipes.check import as_whole, height_and_width
from botformer.recipes.model_options import ModelOptions, Normalization, Position, TablePolicy

DEFAULT_SIZE = (14, 14)
"""Cells of the map that position tables are made for: the paper's, c4 of a 224 px image."""


class BoTBlock(Bottleneck):
    """1x1 convolution, attention over the whole map, 1x1 convolution and a shortcut: c5 of a BoTNet (paper Table 1).

    (B, in_channels, H, W) -> (B, out_channels, ceil(H/stride), ceil(W/stride)), for any H and W. `forward` also takes
    `padding_mask` (B, H, W), bool, True for cells that get no attention. The shortcut has a 1x1 convolution
    where the shape changes. The state dict has the names of a block of torchvision's ResNets; attention stands in the
    place of `conv2`.

    Args:
        in_channels, out_channels: any; out_channels a multiple of `expansion` times `heads`.
        heads: of the attention (the paper: 4).
        size: cells of the map, one number or (height, width), that the position tables are made for. None: 14x14.
            Tables are resized to the map at hand; see `tables`. With the map of the training each offset has an entry
            of its own.
        stride: 1 or 2; with 2 an average pool follows the attention.
        expansion: out_channels over the channels of the attention (the paper: 4).
        position: relative, absolute, none or position_only, see `MHSA2d`.
        tables: interpolate (an entry stands for a fraction of the map) or offset (for a distance in cells).
        backend: of the attention, see `relative_attention_2d`.
        activation: relu or silu.
        zero_gamma: start as the shortcut alone, with gamma 0 in the last BatchNorm (the authors' code: yes);
            where that is frozen, with the last convolution 0.
        drop_path: the probability of leaving out all but the shortcut of an image, in training.
        normalization: of BatchNorm: batch, frozen or sync.

    Raises:
        InputError: channels that do not divide, or a value that is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 4,
        size: int | Sequence[int] | None = None,
        stride: int = 1,
        *,
        expansion: int = 4,
        position: Position = "relative",
        tables: TablePolicy = "interpolate",
        backend: str = "auto",
        activation: Literal["relu", "silu"] = "relu",
        zero_gamma: bool = True,
        drop_path: float = 0.0,
        normalization: Normalization = "batch",
    ) -> None:
        numbers = {"in_channels": in_channels, "out_channels": out_channels, "heads": heads, "expansion": expansion}
        for name, value in numbers.items():
            if (as_whole(value) or 0) < 1:
                raise InputError(f"{name} must be at least 1 and whole, got {value!r}")
        if out_channels % (expansion * heads):
            raise InputError(
                f"{out_channels} output channels do not divide by expansion {expansion} and {heads} heads; choose "
                f"a multiple of {expansion * heads}, or another number of heads, or expansion=1"
            )
        if stride not in (1, 2):
            raise InputError(f"stride must be 1 or 2, got {stride!r}")
        if activation not in ACTIVATIONS:
            raise unknown("activation", activation, ACTIVATIONS)
        options = ModelOptions(
            position=position,
            heads=heads,
            tables=tables,
            backend=backend,
            zero_gamma=zero_gamma,
            drop_path=drop_path,
            normalization=normalization,
        )
        mid = out_channels // expansion
        map_size = DEFAULT_SIZE if size is None else height_and_width("size", size, "cell")
        attention = MHSA2d(mid, heads, map_size, position, tables=tables, backend=backend, pool=stride == 2)
        super().__init__(
            in_channels,
            mid,
            out_channels,
            (1, stride),
            attention,
            options,
            activation=activation,
            squeeze_excite=False,
            drop_path=drop_path,
            key_stride=1,
        )
        init_convolutions(self)
