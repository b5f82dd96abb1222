"""Whether a model is being traced or exported at the moment."""

import torch


def captured() -> bool:
    """True inside `torch.export`, `torch.jit.trace` and both exporters of `torch.onnx`, which are built on them."""
    return torch.compiler.is_exporting() or jit_traced()


def jit_traced() -> bool:
    """True inside `torch.jit.trace`."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
