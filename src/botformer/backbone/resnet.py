"""Networks built from a row of `variants`. State-dict names are torchvision's, so ResNet weights load as they are."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from botformer.backbone.blocks import ACTIVATIONS, Bottleneck, NonLocal, init_convolutions
from botformer.backbone.export_graph import export_graph
from botformer.backbone.fold_batchnorm import fold
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.variants import EXPANSION, STEMS, Row
from botformer.batch_norm import make_norm
from botformer.errors import InputError
from botformer.exportable import Exportable
from botformer.image_normalization import as_float_images, channel_statistics, normalize
from botformer.recipes.model_options import ModelOptions

STAGES = ("c2", "c3", "c4", "c5")


class Stages(nn.Module):
    """conv1, bn1, layer1 to layer4: what `Backbone` and `Classifier` have in common. No forward of its own.

    `conv1` may be exchanged for one of another number of channels; `in_chans` follows it.
    """

    __jit_unused_properties__ = ("in_chans",)

    mean: Sequence[float]
    """Of each channel, for values in 0..1, as `std`."""
    std: Sequence[float]
    """Of each channel, for values in 0..1: what `preprocess` normalises by. May be set; see `channel_statistics`."""

    def __init__(self, row: Row, image_size: tuple[int, int], options: ModelOptions, in_chans: int = 3) -> None:
        super().__init__()
        self.row, self.image_size, self.options = row, image_size, options
        self.mean, self.std = channel_statistics(in_chans)
        kernel, stride = STEMS[row.stem]
        self.conv1 = nn.Conv2d(in_chans, row.stem_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = make_norm(row.stem_channels, options)
        self.act = ACTIVATIONS[row.activation]()
        self.maxpool = _max_pool(row)
        stride_px = stride * (2 if row.stem == "7x7" else 1)
        _check_output_stride(row, stride_px, options.output_stride)
        builder = _StageBuilder(row, image_size, options, stride_px)
        self.layer1, self.layer2, self.layer3, self.layer4 = (builder.stage(index) for index in range(4))
        self.channels = {name: row.width * 2**index * EXPANSION for index, name in enumerate(STAGES)}
        """Channels of each map."""
        self.strides = builder.strides
        """Stride of each map in pixels of the image."""
        init_convolutions(self)
        _freeze(self._frozen_parts())

    @property
    def in_chans(self) -> int:
        """Channels of the images: those that `conv1` takes."""
        convolutions = (module for module in self.conv1.modules() if isinstance(module, nn.Conv2d))
        return next((convolution.in_channels for convolution in convolutions), len(self.mean))

    def stages(self, images: Tensor, padding_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, C, h, w), padding_mask (B, h, w) bool -> {"c2": (B, channels, ceil(h/stride), ceil(w/stride)), ...}.

        Floating-point images are cast to the dtype of the weights.
        """
        weight = next(self.conv1.parameters(), None)
        images = _accepted(images, padding_mask, self.in_chans, weight)
        x = self.maxpool(self.stem(images))
        maps = {}
        for name, stage in zip(STAGES, (self.layer1, self.layer2, self.layer3, self.layer4), strict=True):
            maps[name] = x = self.stage(stage, x, padding_mask)
        return maps

    def stem(self, images: Tensor) -> Tensor:
        """What goes into the max-pool, or into c2 in rows without one."""
        return self.act(self.bn1(self.conv1(images)))

    def stage(self, blocks: nn.Sequential, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """The blocks of one stage, with gradient checkpointing where it is asked for."""
        recompute = self.options.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if padding_mask is None and not recompute:
            return blocks(x)
        if isinstance(getattr(blocks, "_orig_mod", blocks), Stage) or _parameters(type(blocks)).hands_on:
            return blocks(x, padding_mask, recompute)
        return blocks(*_arguments(blocks, x, padding_mask))

    def preprocess(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Images -> what the network takes: normalised by `mean` and `std`, (B, C, h, w), on the device of the images.

        A detector has the same method: `model(model.preprocess(images))` is right for both. Resizing is the caller's.

        Args:
            images: (B, C, h, w), or a list of (C, h, w) of one size; uint8 or floats in 0..1. C is `in_chans`.

        Raises:
            InputError: no images, images of several sizes, or values that are neither bytes nor in 0..1.
        """
        converted = as_float_images(images, self.in_chans)
        sizes = sorted({(image.shape[1], image.shape[2]) for image in converted})
        if len(sizes) != 1:
            found = ", ".join(f"{height}x{width}" for height, width in sizes[:10]) or "none"
            raise InputError(
                f"images must be one or more of one size (height x width), got {found}; resize or crop them"
            )
        return normalize(torch.stack(list(converted)), self.mean, self.std)

    def train(self, mode: bool = True) -> "Stages":
        """`mode` as usual, but frozen parts stay in evaluation mode: their BatchNorm statistics do not move."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def fold(self) -> None:
        """Fold every BatchNorm into the layer before it, in place; for inference only. See `fold_batchnorm`."""
        fold(self)

    def _frozen_parts(self) -> list[nn.Module]:
        stem = nn.ModuleList([self.conv1, self.bn1])
        return [stem, self.layer1, self.layer2, self.layer3, self.layer4][: self.options.frozen_stages]

    def position_table_names(self) -> set[str]:
        """Parameter names of the position tables; weight decay leaves them alone."""
        return {
            f"{name}.{table}"
            for name, module in self.named_modules()
            if isinstance(module, MHSA2d)
            for table in module.position_tables()
        }


class Backbone(Stages):
    """Normalised images (B, C, h, w) -> feature maps {"c2": ..., "c3": ..., "c4": ..., "c5": ...} (paper Table 1).

    `.channels` and `.strides`: channels of each map, and its stride in pixels. `.preprocess` normalises images.
    """

    def forward(self, images: Tensor, padding_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Normalised `images` (B, C, h, w) -> {"c2": (B, channels, ceil(h/stride), ceil(w/stride)), ..., "c5": ...}.

        `padding_mask` is (B, h, w) bool, True for pixels that pad the images (right and below): they get no attention.

        Raises:
            InputError: another number of channels, or a mask of another shape or type.
        """
        return self.stages(images, padding_mask)

    def exportable(
        self, *, size: tuple[int, int] | None = None, batch: int | None = None, images: Sequence[Tensor] = ()
    ) -> Exportable:
        """For `botformer.deploy`: pixels (B, C, h, w) floats in 0..1 -> c2, c3, c4, c5. `size`, `batch` and `images` as
        `ExportsItself` says."""
        return export_graph(self, "features", STAGES, _in_order, size, batch, images)


class Classifier(Stages):
    """Normalised images (B, C, h, w) -> logits (B, num_classes). `.preprocess` normalises images."""

    def __init__(
        self, row: Row, image_size: tuple[int, int], options: ModelOptions, num_classes: int, in_chans: int = 3
    ) -> None:
        super().__init__(row, image_size, options, in_chans)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(options.dropout)
        self.fc = nn.Linear(self.channels["c5"], num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised `images` (B, C, h, w) -> logits (B, num_classes). Any h and w run.

        Raises:
            InputError: another number of channels.
        """
        return self.fc(self.dropout(self.avgpool(self.stages(images)["c5"]).flatten(1)))

    def exportable(
        self, *, size: tuple[int, int] | None = None, batch: int | None = None, images: Sequence[Tensor] = ()
    ) -> Exportable:
        """For `botformer.deploy`: pixels (B, C, h, w) floats in 0..1 -> logits. `size`, `batch` and `images` as
        `ExportsItself` says."""
        return export_graph(self, "classification", ("logits",), _alone, size, batch, images)


def _alone(logits: Tensor) -> tuple[Tensor, ...]:
    return (logits,)


def _in_order(maps: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(maps[name] for name in STAGES)


class _StageBuilder:
    """Builds the stages in order and keeps track of channels, stride and depth."""

    def __init__(self, row: Row, image_size: tuple[int, int], options: ModelOptions, stride_px: int) -> None:
        self.row, self.image_size, self.options = row, image_size, options
        self.channels, self.stride_px, self.depth, self.dilation = row.stem_channels, stride_px, 0, 1
        self.total_depth = sum(row.blocks) + len(row.inserted)
        self.strides: dict[str, int] = {}

    def stage(self, index: int) -> "Stage":
        row, name, mid = self.row, STAGES[index], self.row.width * 2**index
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(row.blocks[index]):
            if block == row.blocks[index] - 1:
                for place, kind in row.inserted:  # by name, so that the others keep torchvision's numbers
                    if place == name:
                        blocks[f"inserted_{kind}"] = self._inserted(kind, mid)
            attends = name == "c5" and row.c5 == "attention"
            blocks[str(block)] = self._bottleneck(mid, *self._strides(row.strides(index, block, attends)), attends)
        self.strides[name] = self.stride_px
        return Stage(blocks)

    def _strides(self, own: tuple[int, int]) -> tuple[tuple[int, int], int]:
        """The strides of a block and the dilation of its 3x3, from the row's strides and the limit of the options.

        Beyond the limit a stride becomes a dilation of what follows: on every `stride`-th position of the larger map
        stands what stood in the smaller one. So a 3x3 that had the stride itself keeps the dilation before it.
        """
        stride, dilation, limit = own[0] * own[1], self.dilation, self.options.output_stride
        if limit is None or self.stride_px * stride <= limit:
            return own, dilation
        self.dilation *= stride
        return (1, 1), dilation if own[0] == 1 else self.dilation

    def _inserted(self, kind: str, mid: int) -> nn.Module:
        if kind == "attention":
            return self._bottleneck(mid, (1, 1), 1, True)
        self.depth += 1
        return NonLocal(self.channels, self.options, key_stride=self.stride_px)

    def _bottleneck(self, mid: int, strides: tuple[int, int], dilation: int, attends: bool) -> Bottleneck:
        options, (height, width) = self.options, self.image_size
        attention = None
        if attends:
            map_size = (-(-height // self.stride_px), -(-width // self.stride_px))
            attention = MHSA2d(
                mid,
                options.heads,
                map_size,
                options.position,
                tables=options.tables,
                backend=options.backend,
                pool=strides[1] == 2,
            )
        block = Bottleneck(
            self.channels,
            mid,
            mid * EXPANSION,
            strides,
            attention,
            options,
            activation=self.row.activation,
            squeeze_excite=self.row.squeeze_excite,
            drop_path=options.drop_path * self.depth / max(self.total_depth - 1, 1),
            key_stride=self.stride_px,
            dilation=dilation,
        )
        self.channels, self.stride_px, self.depth = (
            mid * EXPANSION,
            self.stride_px * strides[0] * strides[1],
            self.depth + 1,
        )
        return block


def _check_output_stride(row: Row, stem_stride_px: int, output_stride: int | None) -> None:
    own = stem_stride_px * 2 * 2 * row.c5_stride
    if output_stride is not None and output_stride > own:
        raise InputError(
            f"output_stride is {output_stride}, but c5 of this row has a stride of {own} pixels; leave "
            "output_stride out, or choose another row"
        )


def _max_pool(row: Row) -> nn.Module:
    """Maps of n cells become ceil(n / 2), whatever n is and wherever the padding is."""
    if row.stem != "7x7":
        return nn.Identity()
    if row.pool_padding == "around":
        return nn.MaxPool2d(3, 2, padding=1)
    # At even n what Caffe and `ceil_mode=True` give; at odd n they leave out the last cell.
    return nn.Sequential(nn.ConstantPad2d((0, 2, 0, 2), -math.inf), nn.MaxPool2d(3, 2))


@torch.fx.wrap
def _accepted(images: Tensor, padding_mask: Tensor | None, in_chans: int, weight: Tensor | None) -> Tensor:
    """The images in the dtype of the weights. Raises `InputError` for what `Stages.stages` does not take."""
    if not torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]  (sizes are tensors there)
        if not isinstance(images, Tensor) or not (images.is_floating_point() or images.is_quantized):
            found = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise InputError(
                f"images are {found}; the network takes a tensor of floats: model(model.preprocess(images))"
            )
        if images.ndim != 4 or images.shape[1] != in_chans:
            raise InputError(f"images must be (batch, {in_chans}, height, width), got shape {tuple(images.shape)}")
        if padding_mask is not None and (
            padding_mask.shape != (images.shape[0], *images.shape[2:]) or padding_mask.dtype != torch.bool
        ):
            raise InputError(
                f"padding_mask has shape {tuple(padding_mask.shape)} and is {padding_mask.dtype} for images of shape "
                f"{tuple(images.shape)}; expected bool (batch, height, width), True for padding"
            )
    return images.to(weight.dtype) if weight is not None and images.is_floating_point() else images


class Stage(nn.Sequential):
    """The blocks of one stage. All its calls are calls of itself, so that hooks see them, and it can be compiled."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, padding_mask: Tensor | None = None, recompute: bool = False
    ) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'). `recompute`: with gradient checkpointing."""
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            for block in self:
                x = block(x, padding_mask)
            return x
        else:  # noqa: RET505  (TorchScript compiles what follows an `if` without `else`)
            return self._run(x, padding_mask, recompute)

    def _run(self, x: Tensor, padding_mask: Tensor | None, recompute: bool) -> Tensor:
        for block in self:
            x = _recomputed(block, x, padding_mask) if recompute else block(*_arguments(block, x, padding_mask))
        return x


class _Parameters(NamedTuple):
    """Of the forward of what may stand in the place of a block or a stage."""

    padding_mask: bool
    """It has one of that name."""
    hands_on: bool
    """It takes whatever it gets, as wrappers do (of gradient checkpointing, of FSDP), or nobody knows."""


@cache
def _parameters(kind: type[nn.Module]) -> _Parameters:
    try:
        parameters = inspect.signature(kind.forward).parameters
    except (AttributeError, TypeError, ValueError):  # of compiled code, such as TorchScript's
        return _Parameters(False, True)
    any_number = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values())
    return _Parameters("padding_mask" in parameters, any_number)


def _arguments(block: nn.Module, x: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, ...]:
    """A block that somebody has put there may take a map alone."""
    if padding_mask is None:
        return (x,)
    if isinstance(getattr(block, "_orig_mod", block), Bottleneck | NonLocal) or any(_parameters(type(block))):
        return x, padding_mask
    return (x,)


def _recomputed(block: nn.Module, x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """The block with gradient checkpointing; its BatchNorms count the batch once.

    What is recomputed has no side effects: it works on copies of the statistics, and those of the first computation are
    kept. Eager PyTorch and every compiler see the same.
    """
    buffers = dict(block.named_buffers())

    def run(x: Tensor, padding_mask: Tensor | None, *before: Tensor) -> tuple[Tensor, ...]:
        after = {name: buffer.clone() for name, buffer in zip(buffers, before, strict=True)}
        return functional_call(block, after, _arguments(block, x, padding_mask)), *after.values()

    copies = [buffer.clone() for buffer in buffers.values()]
    result, *after = checkpoint(run, x, padding_mask, *copies, use_reentrant=False)
    with torch.no_grad():
        for buffer, new in zip(buffers.values(), after, strict=True):
            buffer.copy_(new)
    return result


def _freeze(parts: list[nn.Module]) -> None:
    for part in parts:
        part.requires_grad_(False)
