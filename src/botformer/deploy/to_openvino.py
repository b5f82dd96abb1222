"""OpenVINO: read from the ONNX file, which keeps every digit, and written as its own .xml and .bin."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from botformer.deploy.no_telemetry import import_openvino
from botformer.deploy.precise_regions import keep_regions_precise
from botformer.deploy.to_onnx import write_onnx
from botformer.exportable import Exportable


def write_openvino(exportable: Exportable, precision: str, file: Path) -> None:
    """Write `file` (.xml) and the .bin beside it. float16: weights are stored in two bytes.

    The ONNX file is read directly, not by `openvino.convert_model`, which reports every conversion to its makers.
    """
    openvino = import_openvino()
    with tempfile.TemporaryDirectory(prefix="botformer-") as folder:
        onnx_file = Path(folder) / "model.onnx"
        write_onnx(exportable, "float32", onnx_file)
        model = openvino.Core().read_model(onnx_file)
        keep_regions_precise(model)
        _keep_the_order(model)
        _fold_constants(model)
        openvino.save_model(model, file, compress_to_fp16=precision == "float16")


def _keep_the_order(model: Any) -> None:
    """Among equal values the lower index comes first, as ONNX demands it; OpenVINO takes them in any order."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "TopK":
            node.set_attribute("stable", True)


def _fold_constants(model: Any) -> None:
    """What is known without the image becomes numbers, above all the shapes that biases are given.

    Read from ONNX, a bias gets its shape from the rank of its convolution's result. Where the batch is not fixed,
    OpenVINO 2026.4 then takes the batch size of later reshapes from that same result, which thereby has two readers,
    and its CPU plugin no longer adds the bias in the convolution but in the rounding to int8 that follows: of all
    channels by the bias of the first one.
    """
    passes = import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)
