"""Classifiers and backbones as graphs for other runtimes: BatchNorm folded, attention of PyTorch's own operators,
normalisation inside."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from botformer.backbone.mhsa import MHSA2d
from botformer.errors import InputError
from botformer.exportable import Exportable, ExportTask, Outputs
from botformer.image_normalization import normalize

_OTHER_CELLS = ((7, 7), (6, 3), (2, 8))
"""Height and width, in cells of the coarsest map, of further images on which a graph is compared; oblong ones get a
pixel more. At stride 32: 224x224, 193x97 and 65x257."""
_MOST_DIFFERENT = {"float32": 2e-5, "float16": 2e-2, "bfloat16": 1e-1}
"""Relative to the output's norm: rounding of each layer, added up over some 50 of them."""


class Network(Protocol):
    """What is used of `resnet.Stages`, a module."""

    image_size: tuple[int, int]
    strides: dict[str, int]

    @property
    def in_chans(self) -> int: ...


class _Graph(nn.Module):
    """pixels (B, C, H, W) floats in 0..1 -> the network's results as a tuple."""

    def __init__(self, network: Any, results: Callable[[Any], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network, self.results = network, results

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.results(self.network(normalize(pixels, self.network.mean, self.network.std)))


def export_graph(
    network: Network,
    task: ExportTask,
    output_names: tuple[str, ...],
    results: Callable[[Any], tuple[Tensor, ...]],
    size: tuple[int, int] | None,
    batch: int | None,
    images: Sequence[Tensor],
) -> Exportable:
    """The network as `botformer.exportable.Exportable`. `results` makes a tuple of what its `forward` gives."""
    given: Any = copy.deepcopy(network)
    given = given.cpu().float().eval().requires_grad_(False)
    portable = copy.deepcopy(given)
    portable.fold()
    for module in portable.modules():
        if isinstance(module, MHSA2d):
            module.backend = "sdpa"
    stride = max(network.strides.values())
    others_px = [(h * stride + (h != w), w * stride + (h != w)) for h, w in _OTHER_CELLS]
    shapes = [size] if size else [network.image_size, *others_px]
    example, *others = (_photograph_like(batch or 2, network.in_chans, height, width) for height, width in shapes)
    if batch is None:
        others = [example[:1], *(pixels[: 1 + number % 2] for number, pixels in enumerate(others))]
    axes = {0: "batch"} if batch is None else {}
    exact = _Graph(copy.deepcopy(given).double(), results)
    in_precision = {
        "float32": _Graph(given, results),
        "float16": _Graph(copy.deepcopy(portable).half().float(), results),  # of the weights alone
        "bfloat16": _Graph(copy.deepcopy(portable).bfloat16(), lambda out: tuple(one.float() for one in results(out))),
    }

    def reference(pixels: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(result.float() for result in exact(pixels.double()))

    return Exportable(
        task=task,
        module=_Graph(portable, results).eval(),
        reference=reference,
        rounded={precision: torch.no_grad()(graph) for precision, graph in in_precision.items()},
        example=(example,),
        input_names=("pixels",),
        output_names=output_names,
        dynamic={"pixels": axes if size else axes | {2: "height", 3: "width"}},
        probes=[(pixels,) for pixels in [*others, *_given(images, network.in_chans, size, batch)]],
        differences=_differences,
        limits={precision: dict.fromkeys(output_names, most) for precision, most in _MOST_DIFFERENT.items()},
    )


def _photograph_like(batch: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth colours with edges and noise, the same every time: values in 0..1."""
    generator = torch.Generator().manual_seed(height * 10007 + width)
    coarse = torch.rand(batch, channels, 4, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    edges = (nn.functional.interpolate(coarse.flip(-1), (height, width), mode="nearest") > 0.5).float()
    noise = torch.rand(batch, channels, height, width, generator=generator)
    return 0.6 * smooth + 0.3 * edges + 0.1 * noise


def _given(images: Sequence[Tensor], channels: int, size: tuple[int, int] | None, batch: int | None) -> list[Tensor]:
    batches = []
    for number, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != channels or (size and tuple(image.shape[1:]) != size):
            expected = f"({channels}, {size[0]}, {size[1]})" if size else f"({channels}, height, width)"
            raise InputError(f"image {number} has shape {tuple(image.shape)}; expected {expected}, floats in 0..1")
        batches.append(image.float().cpu()[None].expand(batch or 1, -1, -1, -1).contiguous())
    return batches


def _differences(expected: Outputs, found: Outputs) -> dict[str, float]:
    """Of each output the norm of the difference, relative to the norm of the output."""
    return {name: _distance(values.astype(np.float64), found[name]) for name, values in expected.items()}


def _distance(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-6))
