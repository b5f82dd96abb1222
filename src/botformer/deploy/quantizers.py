"""Post-training quantisation to int8, a function per format. Run as a program of its own by `int8.quantize`:

python quantizers.py MODEL OUT CONFIG SAMPLES

reads an exported model, its config.json and the inputs in SAMPLES/*.npz, writes the file OUT, and prints a line per
sample that was seen. The packages that do it change the logging of the process that imports them, draw bars of their
own and report their use to a server: here all that is a process that ends, and reports nothing. It imports nothing of
ours, as that would take longer than the work.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SEEN = "botformer: sample"
"""Begins the lines that tell of progress."""
_LEAST_CHANNELS = 8
"""What has fewer is no feature map: colours, coordinates."""


def samples(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """The inputs, in the order of the file names."""
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as arrays:
            yield dict(arrays)
        print(SEEN, file.stem, flush=True)


def quantize_openvino(file: Path, out: Path, folder: Path, config: Mapping[str, Any]) -> None:
    """By NNCF: convolutions, products with weights, and what lies between them on feature maps."""
    import nncf
    import openvino

    model = openvino.Core().read_model(file)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(samples(folder)),  # read once
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(list(folder.glob("*.npz"))),
        ignored_scope=nncf.IgnoredScope(names=_in_float(model)),
    )
    openvino.save_model(quantized, out, compress_to_fp16=False)


def _in_float(model: Any) -> list[str]:
    """Names of the operations that are not quantised.

    The boxes of a detector are computed by sums and products, too, and eight bits are too few for a coordinate: of
    these operations only those on feature maps (B, channels, H, W) are quantised. In attention queries and positions
    lie side by side in one product, whose parts have ranges of their own. The convolution of the image itself, a small
    part of the work, would lose as much as all others together.
    """
    names = []
    for operation in model.get_ops():
        kind = operation.get_type_name()
        if kind in ("Parameter", "Result", "Constant"):
            continue
        if kind in ("Convolution", "ConvolutionBackpropData"):
            quantized = operation.input(0).get_partial_shape()[1].get_max_length() >= _LEAST_CHANNELS
        elif kind == "MatMul":
            quantized = any(_is_constant(side.get_source_output().get_node()) for side in operation.inputs())
        else:
            quantized = all(_is_feature_map(output.get_partial_shape()) for output in operation.outputs())
        if not quantized:
            names.append(operation.get_friendly_name())
    return names


def _is_constant(node: Any) -> bool:
    if node.get_type_name() == "Convert":
        node = node.input(0).get_source_output().get_node()
    return node.get_type_name() == "Constant"


def _is_feature_map(shape: Any) -> bool:
    if shape.rank.is_dynamic or shape.rank.get_length() != 4:
        return False
    channels = shape[1]
    return channels.is_static and channels.get_length() >= _LEAST_CHANNELS


def quantize_onnx(file: Path, out: Path, folder: Path, config: Mapping[str, Any]) -> None:
    """By ONNX Runtime: pairs of QuantizeLinear and DequantizeLinear around convolutions and products with
    weights, which are rounded per channel."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):
        def __init__(self) -> None:
            self._samples = samples(folder)

        def get_next(self) -> Any:
            return next(self._samples, None)

    prepared = out.with_name("prepared.onnx")
    quant_pre_process(file, prepared, skip_symbolic_shape=True)
    graph = onnx.load(prepared).graph
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    first = [node.name for node in graph.node if node.op_type == "Conv" and _channels(shapes, node) < _LEAST_CHANNELS]
    quantize_static(
        prepared,
        out,
        Samples(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        nodes_to_exclude=first,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},  # the products of attention stay in float, as above
    )
    prepared.unlink()


def _channels(shapes: Mapping[str, Any], convolution: Any) -> int:
    """That a convolution takes, whose weights are (out, in, height, width)."""
    return shapes[convolution.input[1]][1]


def quantize_torch(file: Path, out: Path, folder: Path, config: Mapping[str, Any]) -> None:
    """By torchao: rounding to int8 around convolutions, weights per channel.

    Whoever compiles the result may compute in int8; as it stands, PyTorch computes in float32 between the roundings.
    """
    import torch
    import torchvision  # noqa: F401  (operators of detectors)
    from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

    activations = QuantizationSpec(torch.uint8, HistogramObserver, 0, 255, torch.per_tensor_affine)
    weights = QuantizationSpec(torch.int8, PerChannelMinMaxObserver, -127, 127, torch.per_channel_symmetric, ch_axis=0)

    class Convolutions(Quantizer):
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            for node in model.graph.nodes:
                if (
                    node.target == torch.ops.aten.conv2d.default
                    and node.args[0].meta["val"].shape[1] >= _LEAST_CHANNELS
                ):
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={node.args[0]: activations, node.args[1]: weights}, _annotated=True
                    )
            return model

        def validate(self, model: torch.fx.GraphModule) -> None:
            pass

    program = torch.export.load(file)
    names = [row["name"] for row in config["inputs"]]
    axes = tuple(
        {place: torch.export.Dim.AUTO for place, side in enumerate(row["shape"]) if isinstance(side, str)}
        for row in config["inputs"]
    )
    example = program.example_inputs
    assert example is not None
    with torch.no_grad():
        prepared = prepare_pt2e(program.module(), Convolutions())
        for sample in samples(folder):
            prepared(*(torch.from_numpy(sample[name]) for name in names))
        quantized = torch.export.export(convert_pt2e(prepared), example[0], dynamic_shapes=axes)
    torch.export.save(quantized, out)


QUANTIZERS = {"openvino": quantize_openvino, "onnx": quantize_onnx, "torch": quantize_torch}
PACKAGES = {"openvino": ("nncf",), "onnx": ("onnx", "onnxruntime"), "torch": ("torchao",)}
"""What each of them needs, beside what the float network was written with."""


def main(arguments: list[str]) -> None:
    file, out, config_file, inputs = map(Path, arguments)
    sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]  # nothing is reported
    config = json.loads(config_file.read_text(encoding="utf-8"))
    QUANTIZERS[config["format"]](file, out, inputs, config)


if __name__ == "__main__":
    main(sys.argv[1:])
