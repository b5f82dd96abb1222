"""Trained networks prepared for inference, and exported to other runtimes."""

from botformer.deploy.export import export_executorch, export_onnx, export_openvino, export_torch
from botformer.deploy.fold_and_freeze import optimize
from botformer.deploy.runtimes import Runtime, open_exported

__all__ = [
    "Runtime",
    "export_executorch",
    "export_onnx",
    "export_openvino",
    "export_torch",
    "open_exported",
    "optimize",
]
