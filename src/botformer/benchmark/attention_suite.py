"""The attention operation alone: the definition, our backends, timm, lucidrains, FlexAttention, and no position.

All take the output of a channels_last 1x1 convolution, (B, 3C, H, W), and return (B, C, H, W); any copies or changes
of layout in between are part of the measurement.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from botformer.attention.backends import BACKENDS
from botformer.benchmark.comparison import Case, Implementation
from botformer.benchmark.third_party import (
    LUCIDRAINS_MISSING,
    AttentionWithoutPosition,
    FlexAttention,
    OurAttention,
    lucidrains_attention,
    timm_attention,
)
from botformer.benchmark.timing import Call, rotations

# Name -> its constructor from the position tables (2H-1, D), (2W-1, D) and the number of heads. The definition comes
# before what is compared with it.
NO_POSITION = {"no position": "", "no position, flash": "flash", "no position, cuDNN": "cuDNN"}
OURS = {"definition": "definition"} | {f"ours, {name}": name for name in BACKENDS if name != "definition"}
IMPLEMENTATIONS: dict[str, Callable[[Tensor, Tensor, int], nn.Module]] = {
    **{
        name: lambda height, width, heads, kernel=kernel: AttentionWithoutPosition(heads, kernel)
        for name, kernel in NO_POSITION.items()
    },
    **{
        name: lambda height, width, heads, backend=backend: OurAttention(height, width, heads, backend)
        for name, backend in OURS.items()
    },
    "timm": timm_attention,
    "lucidrains": lucidrains_attention,
    "FlexAttention": FlexAttention,
}


@dataclass(frozen=True)
class Shape:
    height: int
    width: int
    batch: int = 1
    heads: int = 4
    dim: int = 128
    flex: bool = True
    """Also FlexAttention: on a GPU it is compiled for every shape, which takes longer than all the rest."""

    def gflop(self, backward: bool, position: bool) -> float:
        """Matrix products of the forward pass, or of both passes; the backward pass computes the logits again."""
        B, N, H, W, D = self.batch, self.heads, self.height, self.width, self.dim
        entries = 2 * H - 1 + 2 * W - 1 if position else 0
        forward, again = 2 * H * W * D + D * entries, 5 * H * W * D + 3 * D * entries
        return 2 * B * N * H * W * (forward + (again if backward else 0)) / 1e9


# The most important first: time may run out.
CPU = (Shape(64, 64), Shape(32, 32), Shape(14, 14, batch=8), Shape(16, 16, batch=8), Shape(14, 14))
CUDA = (
    Shape(64, 64),
    Shape(64, 64, batch=8),
    Shape(14, 14, batch=64),
    Shape(32, 32, batch=8),
    Shape(32, 32, flex=False),
    Shape(84, 134, flex=False),
    Shape(80, 80, flex=False),
    Shape(28, 28, batch=16, flex=False),
    Shape(40, 40, batch=4, flex=False),
    Shape(24, 24, batch=16, flex=False),
    Shape(20, 20, batch=16, flex=False),
    Shape(14, 14, batch=8, flex=False),
)
TINY = (Shape(3, 4, batch=2, heads=2, dim=16, flex=False),)


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """The forward pass in inference, and both passes, at each shape; bfloat16 on a GPU, float32 on a CPU."""
    shapes = TINY if quick else CUDA if device.type == "cuda" else CPU
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for shape in shapes:
        for backward in (False, True):
            yield attention_case(shape, backward, device, dtype)


def attention_case(shape: Shape, backward: bool, device: torch.device, dtype: torch.dtype) -> Case:
    return Case(
        {"map": f"{shape.height}x{shape.width}", "batch": shape.batch, "pass": "both" if backward else "forward"},
        [
            Implementation(
                name,
                lambda build=build: _prepare(build, shape, backward, device, dtype),
                output="no position" if name in NO_POSITION else "relative attention",
                unsupported_reason=_unsupported_reason(name, shape, backward, device, dtype),
                third_party=name not in OURS,
                gflop=shape.gflop(backward, position=name not in NO_POSITION),
            )
            for name, build in IMPLEMENTATIONS.items()
        ],
        tolerance=0.001 if dtype == torch.float32 else 0.1,
        least_s=40 if shape.flex and device.type == "cuda" else 0,
    )


def _prepare(
    build: Callable[[Tensor, Tensor, int], nn.Module],
    shape: Shape,
    backward: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Call:
    B, H, W, C = shape.batch, shape.height, shape.width, shape.heads * shape.dim
    height, width = (torch.randn(2 * size - 1, shape.dim) * shape.dim**-0.5 for size in (H, W))
    sets = rotations(B * 4 * C * H * W * dtype.itemsize, device)
    maps = [_map(B, 3 * C, H, W, device, dtype).requires_grad_(backward) for _ in range(sets)]
    upstream = [_map(B, C, H, W, device, dtype) for _ in range(sets)] if backward else []
    # After the inputs, so that these are equal for all: construction may draw random numbers, too.
    attention = build(height.to(device, dtype), width.to(device, dtype), shape.heads).to(device, dtype)
    parameters = list(attention.parameters())

    def forward_call(number: int) -> Tensor:
        with torch.no_grad():
            return attention(maps[number % sets])

    def both_call(number: int) -> tuple[Tensor, ...]:
        projected = maps[number % sets]
        out = attention(projected)
        return out, *torch.autograd.grad(out, [projected, *parameters], upstream[number % sets])

    return both_call if backward else forward_call


def _map(B: int, C: int, H: int, W: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.randn(B, C, H, W, device=device).to(dtype).to(memory_format=torch.channels_last)


def _unsupported_reason(name: str, shape: Shape, backward: bool, device: torch.device, dtype: torch.dtype) -> str:
    if name in OURS:
        sample = torch.empty(1, 1, shape.height, shape.width, shape.dim, device=device, dtype=dtype)
        return BACKENDS[OURS[name]].unsupported_reason(sample, sample)
    if NO_POSITION.get(name):
        return "" if device.type == "cuda" else "the kernel runs on CUDA devices"
    if name == "lucidrains":
        return LUCIDRAINS_MISSING or ("it takes even map sizes only" if shape.height % 2 or shape.width % 2 else "")
    if name == "FlexAttention" and not shape.flex:
        return "not measured at this map, as it is compiled for each one"
    if name == "FlexAttention" and device.type == "cpu":
        return "it has no backward pass on the CPU" if backward else ""
    return ""
