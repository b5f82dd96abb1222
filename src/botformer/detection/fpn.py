"""The feature pyramid: c2..c5 -> p2..p6."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from botformer.batch_norm import make_norm
from botformer.detection.float_types import weights_dtype
from botformer.recipes.detector_settings import Settings


class FeaturePyramid(nn.Module):
    """{"c2": (B, channels, H, W), ...} -> {"p2": (B, fpn_channels, H, W), ...}, as the paper's code base builds it.

    One 1x1 convolution per map; each takes the next coarser sum, enlarged by repetition, on top; a 3x3 convolution
    smooths every sum, and p6 is a 3x3 convolution of stride 2 of p5. BatchNorm, without activation, stands at the end
    of each level and nowhere else. Maps of equal stride (c4 and c5 of an S1 network) are added as they are.

    `channels` and `strides` are the backbone's; `.strides` are those of the levels, finest first.
    """

    def __init__(self, channels: dict[str, int], strides: dict[str, int], settings: Settings) -> None:
        super().__init__()
        width = settings.fpn_channels
        self.levels = settings.levels
        self.maps = [level.replace("p", "c") for level in settings.levels if level != "p6"]
        self.lateral = nn.ModuleDict({name: nn.Conv2d(channels[name], width, 1) for name in self.maps})
        # The biases of the convolutions before a BatchNorm would be taken off again by it.
        self.smooth = nn.ModuleDict({level: _smoothing(width, 2 if level == "p6" else 1) for level in self.levels})
        self.norm = nn.ModuleDict({level: make_norm(width, settings) for level in self.levels})
        self.strides = [
            2 * strides["c5"] if level == "p6" else strides[level.replace("p", "c")] for level in self.levels
        ]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        coarser: Tensor | None = None
        for name in reversed(self.maps):
            lateral, feature_map = self.lateral[name], maps[name]
            if not torch.is_autocast_enabled(feature_map.device.type):  # a backbone may compute in another type
                feature_map = feature_map.to(weights_dtype(lateral))
            total = lateral(feature_map)
            if coarser is not None:
                total = total + F.interpolate(coarser, size=total.shape[2:], mode="nearest")
            sums[name.replace("c", "p")] = coarser = total
        smoothed: dict[str, Tensor] = {}
        for level in self.levels:
            smoothed[level] = self.smooth[level](smoothed["p5"] if level == "p6" else sums[level])
        return {level: self.norm[level](x) for level, x in smoothed.items()}


def _smoothing(channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
