"""The network of a row behind timm's interface. Its state dict is that of `botformer.create_model`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
import torch.nn.functional as F
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models._features import feature_take_indices
from timm.models._features_fx import register_notrace_module
from torch import Tensor, nn

from botformer.backbone.blocks import NonLocal
from botformer.backbone.mhsa import MHSA2d
from botformer.backbone.resnet import STAGES, Stage, Stages
from botformer.backbone.variants import STEMS, Row
from botformer.errors import InputError
from botformer.recipes.check import as_whole, height_and_width
from botformer.recipes.model_options import make_options

# In timm's graphs of `torch.fx` attention is one node, which TorchScript can compile.
register_notrace_module(MHSA2d)
register_notrace_module(NonLocal)

_LAYERS = ("layer1", "layer2", "layer3", "layer4")


class TimmNetwork(Stages):
    """Normalised images (B, C, h, w) -> logits (B, num_classes); without classes the pooled c5, or with `global_pool`
    "" the map itself. Any h and w. Attributes and methods are those of timm's ResNet.

    Args:
        row: of the table of networks.
        num_classes: 0 leaves out the linear layer.
        in_chans: channels of the images.
        img_size: pixels, one number or (height, width), that the position tables are made for; the row's own by
            default. Other sizes run, too.
        output_stride: of the last map in pixels: 16 or 8 in place of the row's own, which 32 stands for. Convolutions
            are dilated then, as in timm's ResNets; attention sees the whole map as it is.
        global_pool: of timm's pooling layers: avg, max, avgmax, catavgmax, or "" for none.
        drop_rate: dropout before the linear layer.
        drop_path_rate: stochastic depth at the last block, growing linearly from 0 at the first.
        options: further fields of `botformer.recipes.model_options.ModelOptions`.
        device, dtype: of the parameters.

    Raises:
        InputError: a value that is out of range, or an output stride that the row cannot have.
    """

    drop_rate: Final[float]
    num_classes: int
    num_features: int
    """Channels of the last map."""
    head_hidden_size: int
    """Width of what goes into the linear layer."""

    def __init__(
        self,
        row: Row,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] | None = None,
        output_stride: int = 32,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        options: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_head(num_classes, global_pool)
        if (as_whole(in_chans) or 0) < 1:
            raise InputError(f"in_chans must be at least 1 and whole, got {in_chans!r}")
        made = make_options(
            {
                **(options or {}),
                "output_stride": None if output_stride == 32 else output_stride,
                "dropout": drop_rate,
                "drop_path": drop_path_rate,
            }
        )
        size = height_and_width("img_size", row.image_size if img_size is None else img_size)
        with torch.device(device if device is not None else torch.get_default_device()):
            super().__init__(row, size, made, in_chans)
        self.drop_rate = made.dropout
        stem_stride = STEMS[row.stem][1]
        self.feature_info = [
            {"num_chs": row.stem_channels, "reduction": stem_stride, "module": "act"},
            *(
                {"num_chs": self.channels[name], "reduction": self.strides[name], "module": layer}
                for name, layer in zip(STAGES, _LAYERS, strict=True)
            ),
        ]
        self.num_features = self.channels["c5"]
        self.to(dtype=dtype)
        self._set_head(num_classes, global_pool)

    def _set_head(self, num_classes: int, global_pool: str) -> None:
        _check_head(num_classes, global_pool)
        self.num_classes = num_classes
        self.global_pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            weight = next(self.conv1.parameters())
            self.fc = nn.Linear(self.head_hidden_size, num_classes, device=weight.device, dtype=weight.dtype)
            nn.init.normal_(self.fc.weight, std=0.01)
            nn.init.zeros_(self.fc.bias)
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """c5, not pooled: (B, num_features, h', w')."""
        x = self.maxpool(self.stem(x))
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            return self.layer4(self.layer3(self.layer2(self.layer1(x))))
        else:  # noqa: RET505  (TorchScript compiles what follows an `if` without `else`)
            for blocks in (self.layer1, self.layer2, self.layer3, self.layer4):
                x = self.stage(blocks, x)
            return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """c5 -> logits, or with `pre_logits` what goes into the linear layer."""
        x = self.global_pool(x)
        if self.drop_rate:
            x = F.dropout(x, p=self.drop_rate, training=self.training)
        return x if pre_logits else self.fc(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """c5 and the maps with the numbers `indices` of `feature_info`, or the maps alone.

        Args:
            indices: all by default; one number for that many of the last.
            norm: of no meaning here: every map is the output of a block.
            stop_early: run no stage behind the last map that is asked for, which then stands in the place of c5.
        """
        if output_fmt != "NCHW":
            raise InputError(f"maps are NCHW, got output_fmt {output_fmt!r}")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        x = self.stem(x)
        maps = [x] if 0 in taken else []
        x = self.maxpool(x)
        for number, blocks in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            if stop_early and number > last:
                break
            x = self.stage(blocks, x)
            if number in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Leave out the stages that the maps of `indices` do not need; returns the numbers of those maps."""
        taken, last = feature_take_indices(len(self.feature_info), indices)
        for name in _LAYERS[last:]:
            setattr(self, name, Stage())
        if last == 0:
            self.maxpool = nn.Identity()
        if last < len(_LAYERS):
            self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or last < len(_LAYERS):
            self.reset_classifier(0, "")
        return taken

    def get_classifier(self, name_only: bool = False) -> nn.Module | str:
        return "fc" if name_only else self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another linear layer, with random weights; None keeps the pooling, and averages where classes need one."""
        if global_pool is None:
            global_pool = self.global_pool.pool_type or ("avg" if num_classes else "")
        self._set_head(num_classes, global_pool)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.options = replace(self.options, gradient_checkpointing=enable)

    def no_weight_decay(self) -> set[str]:
        return self.position_table_names()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters from the first to the last, for layer-wise learning rates: of stages, or of blocks."""
        if coarse:
            return {"stem": r"^(?:conv1|bn1)\.", "blocks": r"^layer(\d+)\."}
        # An inserted block stands before the last block of its stage, between two numbers.
        inserted = [
            (rf"^layer{stage}\.inserted_{kind}\.", (stage, self.row.blocks[stage - 1] - 1.5))
            for stage, kind in ((int(name[1:]) - 1, kind) for name, kind in self.row.inserted)
        ]
        return {"stem": r"^(?:conv1|bn1)\.", "blocks": [(r"^layer(\d+)\.(\d+)\.", None), *inserted]}


def _check_head(num_classes: int, global_pool: str) -> None:
    if as_whole(num_classes) is None or num_classes < 0:
        raise InputError(f"num_classes must be at least 0 and whole, got {num_classes!r}")
    if num_classes and not global_pool:
        raise InputError(
            f"without global pooling a map of c5 would go into the linear layer of {num_classes} classes; leave it "
            "out, too, with num_classes=0"
        )
