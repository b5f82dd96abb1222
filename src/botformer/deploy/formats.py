"""The formats of exported networks, as rows: which file, which packages, how it is written and opened.

What does not work stands in `support`, with the reason.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from botformer.errors import InputError, unknown

FormatName = Literal["torch", "onnx", "openvino", "executorch"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]


@dataclass(frozen=True)
class Format:
    """One kind of file."""

    title: str
    model_file: str
    extra: str
    """Of `pip install "botformer[extra]"`; "" where PyTorch is enough."""
    to_write: tuple[str, ...]
    """Packages that writing needs."""
    to_run: tuple[str, ...]
    """Packages that running needs."""
    fixed_size: bool = False
    """Whether batch, height and width are those that it was written for."""


FORMATS: dict[FormatName, Format] = {
    "torch": Format("torch.export", "model.pt2", "", (), ("torch",)),
    "onnx": Format("ONNX", "model.onnx", "export", ("onnx", "onnxscript"), ("onnxruntime",)),
    "openvino": Format("OpenVINO", "model.xml", "export", ("onnx", "onnxscript"), ("openvino",)),  # read from ONNX
    "executorch": Format("ExecuTorch", "model.pte", "executorch", ("executorch",), ("executorch",), fixed_size=True),
}


def find_format(name: str) -> Format:
    """The row called `name`. Raises `InputError` for an unknown one."""
    if name not in get_args(FormatName):
        raise unknown("format", name, get_args(FormatName))
    return FORMATS[name]  # pyright: ignore[reportArgumentType]


def check_installed(format_name: str, packages: tuple[str, ...]) -> None:
    """Raise `InputError` unless the packages are there, which are not imported."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        row = find_format(format_name)
        raise InputError(
            f"{row.title} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            f'pip install "botformer[{row.extra}]"'
        )
