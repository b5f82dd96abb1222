"""What each format can do, as rows: format x task x precision. `export` refuses by them, docs/deploy.md prints them.

`benchmarks/export_matrix.py` exports by every row and compares with PyTorch, and a test holds its receipt against the
rows; a row that does not work says why.
"""

from dataclasses import dataclass
from typing import get_args

from botformer.deploy.formats import FormatName, Precision, find_format
from botformer.errors import InputError, unknown
from botformer.exportable import ExportTask

ANY_SIZE, FIXED_SIZE, FIXED_CANVAS = "any batch, height and width", "fixed batch, height and width", "fixed canvas"


@dataclass(frozen=True)
class Support:
    """Whether a network can be exported so."""

    sizes: str
    """Of the inputs that the graph takes; "" where it is refused."""
    meaning: str = ""
    """What the precision means here."""
    refused: str = ""
    """The reason, where it does not work."""


_INT8 = "kept only if it is faster and as accurate, on the machine and data at hand"


def _refused(reason: str) -> Support:
    return Support(sizes="", refused=reason)


_CLASSIFIERS_AND_BACKBONES: dict[tuple[FormatName, Precision], Support] = {
    ("torch", "float32"): Support(ANY_SIZE),
    ("torch", "bfloat16"): Support(ANY_SIZE, "computes in bfloat16; inputs and results stay float32"),
    ("torch", "float16"): _refused("PyTorch computes float16 on processors no faster than float32; take bfloat16"),
    ("torch", "int8"): Support(ANY_SIZE, _INT8),
    ("onnx", "float32"): Support(ANY_SIZE),
    ("onnx", "float16"): Support(ANY_SIZE, "weights stored in float16, half the file; computes in float32"),
    ("onnx", "bfloat16"): _refused("ONNX Runtime has no bfloat16 convolution on processors; take openvino"),
    ("onnx", "int8"): Support(ANY_SIZE, _INT8),
    ("openvino", "float32"): Support(ANY_SIZE),
    ("openvino", "float16"): Support(ANY_SIZE, "weights stored in float16, half the file; computes in float32"),
    ("openvino", "bfloat16"): Support(ANY_SIZE, "computes in bfloat16 where the processor has it, else in float32"),
    ("openvino", "int8"): Support(ANY_SIZE, _INT8),
    ("executorch", "float32"): Support(FIXED_SIZE),
    ("executorch", "float16"): _refused("ExecuTorch's XNNPACK backend is exported in float32 here"),
    ("executorch", "bfloat16"): _refused("ExecuTorch's XNNPACK backend has no bfloat16 convolution"),
    ("executorch", "int8"): _refused("ExecuTorch's XNNPACK backend is exported in float32 here"),
}
SUPPORT: dict[tuple[FormatName, ExportTask, Precision], Support] = {
    (name, task, precision): row
    for (name, precision), row in _CLASSIFIERS_AND_BACKBONES.items()
    for task in ("classification", "features")
}
SUPPORT |= {
    (name, "features", "int8"): _refused("a backbone alone has no accuracy that could be measured")
    for name in get_args(FormatName)
}
_DETECTORS: dict[tuple[FormatName, Precision], Support] = {
    ("torch", "float32"): Support(FIXED_CANVAS),
    ("torch", "bfloat16"): Support(FIXED_CANVAS, "layers compute in bfloat16; boxes and scores stay float32"),
    ("torch", "float16"): _refused("PyTorch computes float16 on processors no faster than float32; take bfloat16"),
    ("torch", "int8"): Support(FIXED_CANVAS, _INT8),
    ("onnx", "float32"): Support(FIXED_CANVAS),
    ("onnx", "float16"): Support(FIXED_CANVAS, "weights stored in float16, half the file; computes in float32"),
    ("onnx", "bfloat16"): _refused("ONNX Runtime has no bfloat16 convolution on processors; take openvino"),
    ("onnx", "int8"): Support(FIXED_CANVAS, _INT8),
    ("openvino", "float32"): Support(FIXED_CANVAS),
    ("openvino", "float16"): Support(FIXED_CANVAS, "weights stored in float16, half the file; computes in float32"),
    ("openvino", "bfloat16"): Support(
        FIXED_CANVAS, "layers compute in bfloat16 where the processor has it; boxes and scores stay float32"
    ),
    ("openvino", "int8"): Support(FIXED_CANVAS, _INT8),
    ("executorch", "float32"): _refused("ExecuTorch has neither non-maximum suppression nor RoIAlign"),
    ("executorch", "float16"): _refused("ExecuTorch has neither non-maximum suppression nor RoIAlign"),
    ("executorch", "bfloat16"): _refused("ExecuTorch has neither non-maximum suppression nor RoIAlign"),
    ("executorch", "int8"): _refused("ExecuTorch has neither non-maximum suppression nor RoIAlign"),
}
SUPPORT |= {(name, "detection", precision): row for (name, precision), row in _DETECTORS.items()}


def check_supported(format_name: FormatName, task: ExportTask, precision: Precision) -> Support:
    """The row. Raises `InputError` with the reason where the combination does not work."""
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    row = SUPPORT.get((format_name, task, precision))
    if row is None or row.refused:
        works = [p for (f, t, p), other in SUPPORT.items() if (f, t) == (format_name, task) and not other.refused]
        reason = row.refused if row else f"no {task} network is exported so"
        hint = f"; {find_format(format_name).title} takes {', '.join(works)}" if works else ""
        raise InputError(f"{find_format(format_name).title} in {precision} is refused: {reason}{hint}")
    return row
