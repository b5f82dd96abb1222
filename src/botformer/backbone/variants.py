"""THE TABLE: every network as a row of data. Standard library only.

A row says what differs from a ResNet-50; nothing else in the package knows a model's name.
"""

from dataclasses import dataclass
from typing import Literal

from botformer.errors import unknown

Operation = Literal["convolution", "attention"]
Stem = Literal["7x7", "3x3", "3x3/2"]
STEMS: dict[Stem, tuple[int, int]] = {"7x7": (7, 2), "3x3": (3, 1), "3x3/2": (3, 2)}
"""Kernel and stride; a 3x3 max-pool of stride 2 follows the 7x7 stem. Maps of n cells become ceil(n / stride)."""
EXPANSION = 4
"""Output channels of a block per channel of its bottleneck."""


@dataclass(frozen=True)
class Row:
    """One network.

    `blocks` of each stage c2..c5; `c5` the spatial operation of its blocks; `inserted` pairs of a stage and the kind of
    block that is inserted before its last block; `width` channels of c2's bottleneck;
    `stem` 7x7 stride 2 and max-pool (ImageNet), or one 3x3 convolution of stride 1 or 2 (small images); `stem_width`
    its channels, where they are not c2's `width`.
    `stride_in` the layer of a convolution block that has its stride: the 3x3 (torchvision, "v1.5") or the first 1x1
    (Caffe, the original). `pool_padding`: the max-pool's 3x3 windows are padded around the map, so that the first one
    is centred on the first cell (torchvision), or after it, so that the first one begins there (Caffe, which rounds
    sizes up).
    """

    blocks: tuple[int, int, int, int]
    c5: Operation = "convolution"
    c5_stride: int = 2
    squeeze_excite: bool = False
    activation: Literal["relu", "silu"] = "relu"
    image_size: int = 224
    inserted: tuple[tuple[str, Literal["non_local", "attention"]], ...] = ()
    width: int = 64
    stem: Stem = "7x7"
    stem_width: int | None = None
    stride_in: Literal["3x3", "1x1"] = "3x3"
    pool_padding: Literal["around", "after"] = "around"

    @property
    def stem_channels(self) -> int:
        return self.stem_width or self.width

    def strides(self, stage: int, block: int, attends: bool) -> tuple[int, int]:
        """Stride of the block's first 1x1 and of its spatial operation; `stage` 0 is c2. Their product is the block's.

        Attention has no stride: where it is 2, a 2x2 average pool follows it, in every row.
        """
        stride = 1 if block or not stage else self.c5_stride if stage == len(self.blocks) - 1 else 2
        return (stride, 1) if self.stride_in == "1x1" and not attends else (1, stride)


def _half(c5: Operation, c5_stride: int) -> Row:
    return Row((3, 4, 6, 3), c5, c5_stride, width=32, stem_width=64, stride_in="1x1", pool_padding="after")


# fmt: off
ROWS: dict[str, Row] = {
    #                    blocks            c5            stride  SE     activation  image
    # Table 1 and its depths; the stride of a ResNet block is in its 3x3 convolution.
    "resnet50":      Row((3,  4,  6,  3), "convolution", 2,      False, "relu",     224),
    "resnet101":     Row((3,  4, 23,  3), "convolution", 2,      False, "relu",     224),
    "resnet152":     Row((3,  8, 36,  3), "convolution", 2,      False, "relu",     224),
    "resnet200":     Row((3, 24, 36,  3), "convolution", 2,      False, "relu",     224),
    "botnet50":      Row((3,  4,  6,  3), "attention",   2,      False, "relu",     224),
    "botnet101":     Row((3,  4, 23,  3), "attention",   2,      False, "relu",     224),
    "botnet152":     Row((3,  8, 36,  3), "attention",   2,      False, "relu",     224),
    "botnet200":     Row((3, 24, 36,  3), "attention",   2,      False, "relu",     224),
    # Stride 1 throughout c5.
    "botnet_s1_50":  Row((3,  4,  6,  3), "attention",   1,      False, "relu",     224),
    "botnet_s1_101": Row((3,  4, 23,  3), "attention",   1,      False, "relu",     224),
    "botnet_s1_152": Row((3,  8, 36,  3), "attention",   1,      False, "relu",     224),
    # The scaled family; squeeze-and-excitation in the convolution blocks only. T7 also runs at 320 px (T7-320).
    "botnet_t3":     Row((3,  4,  6,  6), "attention",   1,      True,  "silu",     224),  # BoTNet-S1-59
    "botnet_t4":     Row((3,  4, 23,  6), "attention",   1,      True,  "silu",     224),  # BoTNet-S1-110
    "botnet_t5":     Row((3,  4, 23, 12), "attention",   1,      True,  "silu",     256),  # BoTNet-S1-128
    "botnet_t6":     Row((3,  4,  6, 12), "attention",   1,      True,  "silu",     320),  # BoTNet-S1-77
    "botnet_t7":     Row((3,  4, 23, 12), "attention",   1,      True,  "silu",     384),  # BoTNet-S1-128
    # The SE-ResNets in the same table.
    "se_resnet50":   Row((3,  4,  6,  3), "convolution", 2,      True,  "silu",     224),
    "se_resnet101":  Row((3,  4, 23,  3), "convolution", 2,      True,  "silu",     224),
    "se_resnet152":  Row((3,  8, 36,  3), "convolution", 2,      True,  "silu",     288),
    "se_resnet350":  Row((4, 36, 72,  4), "convolution", 2,      True,  "silu",     320),
    # One more block in a stage (Non-Local comparison).
    "resnet50_nl":       Row((3, 4, 6, 3), inserted=(("c4", "non_local"),)),
    "resnet50_bot_c4":   Row((3, 4, 6, 3), inserted=(("c4", "attention"),)),
    "resnet50_bot_c4c5": Row((3, 4, 6, 3), inserted=(("c4", "attention"), ("c5", "attention"))),
    # Half as wide, as a ResNet-50 that was trained in Caffe: what `--model.weights imagenet` has for a CPU.
    "resnet50_half":      _half("convolution", 2),
    "botnet50_half":      _half("attention", 2),
    "botnet_s1_50_half":  _half("attention", 1),
    # Ours, for small images: CIFAR's 32 px with the full network, and small ones for the demo and the tests.
    "resnet50_cifar":    Row((3, 4, 6, 3), "convolution", 2, image_size=32, stem="3x3"),
    "botnet50_cifar":    Row((3, 4, 6, 3), "attention",   2, image_size=32, stem="3x3"),
    "botnet_s1_50_cifar": Row((3, 4, 6, 3), "attention",  1, image_size=32, stem="3x3"),
    "resnet_mini":       Row((1, 1, 2, 1), "convolution", 1, image_size=48, width=16, stem="3x3/2"),
    "botnet_mini":       Row((1, 1, 2, 1), "attention",   1, image_size=48, width=16, stem="3x3/2"),
    "resnet_nano":       Row((1, 1, 2, 1), "convolution", 1, image_size=48, width=8, stem="3x3/2"),
    "botnet_nano":       Row((1, 1, 2, 1), "attention",   1, image_size=48, width=8, stem="3x3/2"),
}
# fmt: on


@dataclass(frozen=True)
class Published:
    """What the paper prints for a row at an image size; nothing here was computed by this project."""

    image_size: int
    parameters: str = ""
    multiply_adds: str = ""
    note: str = ""


_SE_NOTE = "the published count includes SE on the attention blocks too"
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "resnet50": (Published(1024, "25.5e6", "85.4e9"),),
    "resnet101": (Published(1024, "", "162.99e9"),),
    "resnet152": (Published(1024, "", "240.56e9"),),
    "botnet50": (Published(1024, "20.8e6", "102.98e9"),),
    "botnet_s1_50": (Published(224, "", "4.27e9", "nobody reproduces 4.27e9"),),
    "botnet_t3": (Published(224, "33.5e6", "7.3e9", _SE_NOTE),),
    "botnet_t4": (Published(224, "54.7e6", "10.9e9", _SE_NOTE),),
    "botnet_t5": (Published(256, "75.1e6", "19.3e9", _SE_NOTE),),
    "botnet_t6": (Published(320, "53.9e6", "23.3e9", _SE_NOTE),),
    "botnet_t7": (Published(384, "75.1e6", "45.8e9", _SE_NOTE),),
    "se_resnet50": (Published(224, "28.0e6", "4.09e9"),),
    "se_resnet152": (Published(288, "66.6e6", "19.04e9"),),
    "se_resnet350": (Published(320, "115.2e6", "52.9e9"),),
}


def find_row(name: str) -> Row:
    """The row called `name`; an unknown name suggests the nearest (`InputError`)."""
    if name not in ROWS:
        raise unknown("model", name, ROWS)
    return ROWS[name]
