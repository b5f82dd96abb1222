"""The parts of a stage: squeeze-and-excitation, the bottleneck block and the Non-Local block."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, StochasticDepth

from botformer.attention import dot_attention
from botformer.backbone.mhsa import LogitTerm, MHSA2d
from botformer.batch_norm import make_norm
from botformer.recipes.model_options import ModelOptions

torch.fx.wrap("dot_attention")

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": lambda: nn.SiLU(inplace=True),
}


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means: (B, C, H, W) -> (B, C, H, W); C/16 in between, biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 16, 1)
        self.expand = nn.Conv2d(channels // 16, channels, 1)
        self.act = nn.ReLU(inplace=True)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))


class Bottleneck(nn.Module):
    """1x1, spatial operation, 1x1, each with BatchNorm, and a shortcut: (B, inputs, H, W) -> (B, outputs, H/s, W/s).

    The spatial operation is a 3x3 convolution, or, in a BoT block, attention that ends in a 2x2 average pool where its
    stride is 2 (attention has none). `strides` are those of the first 1x1 and of the spatial operation, s their
    product. `key_stride` is the stride in pixels of the map that is attended to; `dilation` is that of the 3x3.
    """

    attends: Final[bool]

    def __init__(
        self,
        inputs: int,
        mid: int,
        outputs: int,
        strides: tuple[int, int],
        attention: MHSA2d | None,
        options: ModelOptions,
        *,
        activation: str,
        squeeze_excite: bool,
        drop_path: float,
        key_stride: int,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        stride = strides[0] * strides[1]
        self.key_stride, self.attends, self.zero_gamma = key_stride, attention is not None, options.zero_gamma
        self.conv1 = nn.Conv2d(inputs, mid, 1, strides[0], bias=False)
        self.bn1 = make_norm(mid, options)
        self.conv2 = attention or nn.Conv2d(mid, mid, 3, strides[1], dilation, dilation, bias=False)
        self.bn2 = make_norm(mid, options)
        self.conv3 = nn.Conv2d(mid, outputs, 1, bias=False)
        self.bn3 = make_norm(outputs, options, gamma=0.0 if options.zero_gamma else 1.0)
        self.se = SqueezeExcite(outputs) if squeeze_excite and not attention else nn.Identity()
        self.act = ACTIVATIONS[activation]()
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            projection = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), make_norm(outputs, options)]
            self.downsample = nn.Sequential(*projection, *([self.act] if options.shortcut_activation else []))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """`x` (B, inputs, H, W) -> (B, outputs, ceil(H/s), ceil(W/s)).

        `padding_mask` is bool, True for padding, which gets no attention: (B, H, W), or of the whole image where
        `key_stride` is more than 1. Other layers do not look at it.
        """
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.act(self.bn1(self.conv1(x)))
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            if self.attends:
                out = self.conv2(out, downsample_padding_mask(padding_mask, self.key_stride))
            else:
                out = self.conv2(out)
        else:
            out = self._spatial(out, padding_mask)
        out = self.act(self.bn2(out))
        out = self.se(self.bn3(self.conv3(out)))
        return self.act(shortcut + self.drop_path(out))

    def _spatial(self, out: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Whatever stands at `conv2` now: it may have been exchanged for another layer."""
        if isinstance(self.conv2, MHSA2d):
            return self.conv2(out, downsample_padding_mask(padding_mask, self.key_stride))
        return self.conv2(out)


def init_convolutions(network: nn.Module) -> None:
    """He normal, fan-in, for convolutions; attention and BatchNorm have their own. Before a frozen BatchNorm whose
    scale would start at 0: 0."""
    attention_projections = {module.qkv for module in network.modules() if isinstance(module, MHSA2d)}
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module not in attention_projections:
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in network.modules():  # where a scale of 0 would stay one, the layer before it starts at 0
        if isinstance(block, Bottleneck) and block.zero_gamma and isinstance(block.bn3, FrozenBatchNorm2d):
            nn.init.zeros_(block.conv3.weight)
        elif isinstance(block, NonLocal) and isinstance(block.bn, FrozenBatchNorm2d):
            nn.init.zeros_(block.out.weight)


class NonLocal(nn.Module):
    """The Non-Local block the paper compares with: one head, no positions, channels halved, inserted as a residual.

    Embedded Gaussian, (B, C, H, W) -> (B, C, H, W). The paper does not say where it is in the stage; that it is before
    the last block, and that its last BatchNorm starts at 0, is our choice.
    """

    def __init__(self, channels: int, options: ModelOptions, *, key_stride: int) -> None:
        super().__init__()
        self.key_stride = key_stride
        self.qkv = nn.Conv2d(channels, 3 * (channels // 2), 1)
        self.out = nn.Conv2d(channels // 2, channels, 1)
        self.bn = make_norm(channels, options, gamma=0.0)

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            return self._by_definition(x, padding_mask)
        else:  # noqa: RET505  (TorchScript compiles what follows an `if` without `else`)
            return self._attend(x, padding_mask)

    def logit_terms(self, x: Tensor) -> Mapping[str, LogitTerm]:
        """As `MHSA2d.logit_terms`: content alone."""
        q, k, _ = self._project(x)
        return {"content": ((q,), (k,))}

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k, v, (B, 1, H, W, C/2) each; the embedded Gaussian has no scale."""
        return self.qkv(x).permute(0, 2, 3, 1).unsqueeze(1).chunk(3, -1)

    def _attend(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        q, k, v = self._project(x)
        out = dot_attention([q], [k], v, downsample_padding_mask(padding_mask, self.key_stride))
        return x + self.bn(self.out(out[:, 0].permute(0, 3, 1, 2)))

    def _by_definition(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """What TorchScript compiles: the (HW)^2 matrix."""
        parts = self.qkv(x).flatten(2).unflatten(1, [3, -1])  # (B, 3, C/2, HW)
        logits = torch.einsum("bdq,bdk->bqk", parts[:, 0], parts[:, 1])
        cells = downsample_padding_mask(padding_mask, self.key_stride)
        if cells is not None:
            logits = logits.masked_fill(cells.flatten(1)[:, None], float("-inf"))
        weights = logits.softmax(-1)
        if cells is not None:
            weights = weights.masked_fill(cells.flatten(1).all(1)[:, None, None], 0.0)
        out = torch.einsum("bqk,bdk->bdq", weights, parts[:, 2]).unflatten(2, [x.shape[2], x.shape[3]])
        return x + self.bn(self.out(out))


@torch.fx.wrap
def downsample_padding_mask(padding_mask: Tensor | None, stride: int) -> Tensor | None:
    """The padding mask of pixels (B, h, w) -> that of cells (B, ceil(h/stride), ceil(w/stride)).

    Images are padded at the right and the bottom, so a cell is padding where its first pixel is.
    """
    return None if padding_mask is None else padding_mask[:, ::stride, ::stride]
