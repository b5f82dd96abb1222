"""Whether a model is being traced or exported at the moment."""

import sys

import torch

from botformer.errors import InputError


def captured() -> bool:
    """True inside `torch.export`, `torch.jit.trace` and both exporters of `torch.onnx`, which are built on them."""
    return torch.compiler.is_exporting() or jit_traced()


def jit_traced() -> bool:
    """True inside `torch.jit.trace`."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def refuse_dynamic_axes() -> None:
    """Inside `torch.jit.trace`: raise `InputError` if it is of an ONNX export with `dynamic_axes`.

    That exporter fixes the sizes of the example while converting, and does not say so. The caller's argument is read
    from its frame: nothing else tells.
    """
    frame = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("torch.onnx") and frame.f_locals.get("dynamic_axes"):
            raise InputError(
                "torch.onnx.export(dynamo=False) fixes the sizes of the example in attention, whatever dynamic_axes "
                "says; use dynamo=True with dynamic_shapes, or leave dynamic_axes out"
            )
        frame = frame.f_back
