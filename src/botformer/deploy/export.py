"""A trained network -> a folder that runs elsewhere, once it was held against PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from botformer.deploy.check_graph import check_graph
from botformer.deploy.exported_folder import check_free, new_folder, write_config
from botformer.deploy.formats import FormatName, Precision, check_installed, find_format
from botformer.deploy.runtimes import open_model
from botformer.deploy.to_torch import write_torch
from botformer.environment import versions
from botformer.errors import InputError
from botformer.exportable import Exportable, ExportsItself

OnProgress = Callable[[float], object]


def _silent(fraction: float) -> None:
    pass


def export_torch(
    model: nn.Module,
    folder: str | Path,
    model_config: Mapping[str, Any] | None = None,
    *,
    precision: Precision = "float32",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    images: Sequence[Tensor] = (),
    on_progress: OnProgress = _silent,
) -> Path:
    """Write a `torch.export` program (model.pt2), which PyTorch runs without botformer. Arguments as in `export`."""
    return export("torch", model, folder, model_config, precision, size, batch, images, on_progress)


def export(
    format_name: FormatName,
    model: nn.Module,
    folder: str | Path,
    model_config: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    images: Sequence[Tensor] = (),
    on_progress: OnProgress = _silent,
) -> Path:
    """Write `folder`: the model, config.json and run.py. The model is compared with PyTorch first, at several sizes.

    Args:
        format_name: "torch", "onnx", "openvino" or "executorch".
        model: a classifier, backbone or detector of botformer, on any device, in any mode and dtype; a copy is exported
            in evaluation mode.
        folder: new, empty, or an earlier export, which is replaced.
        model_config: what `botformer.load` gave with the model: class names and how images are prepared.
        precision: what the graph computes in.
        size: (height, width) of the pixels, fixed; by default any, or the network's own where there must be one.
        batch: images per call, fixed; by default any, or 1 where there must be one.
        images: (C, h, w) floats in 0..1, on which the graph is compared too.
        on_progress: called with the fraction that is done.

    Returns:
        The folder.

    Raises:
        InputError: a network, format or precision that does not go together, with the reason; a graph that differs
            from PyTorch, with the figures. Nothing is left behind.
    """
    folder = Path(folder)
    row = find_format(format_name)
    check_free(folder)
    check_installed(format_name, row.to_write + row.to_run)
    exportable = _exportable(model, size, batch, images)
    with new_folder(folder) as unfinished:
        _WRITERS[format_name](exportable, precision, unfinished / row.model_file)
        on_progress(0.5)
        config = _config(exportable, format_name, precision, model_config)
        runtime = open_model(config, unfinished)
        config["checked"] = check_graph(exportable, runtime, precision, lambda done: on_progress(0.5 + done / 2))
        write_config(unfinished, config)
    return folder


_WRITERS: dict[FormatName, Callable[[Exportable, str, Path], None]] = {"torch": write_torch}


def _exportable(
    model: nn.Module, size: tuple[int, int] | None, batch: int | None, images: Sequence[Tensor]
) -> Exportable:
    while isinstance(wrapped := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
        model = wrapped
    if not isinstance(model, ExportsItself):
        raise InputError(
            f"export takes a classifier, a backbone or a detector of botformer, got {type(model).__name__}; of a "
            "wrapper give what it wraps"
        )
    return model.exportable(size=size, batch=batch, images=images)


def _config(
    exportable: Exportable, format_name: str, precision: str, model_config: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "format": format_name,
        "precision": precision,
        "task": exportable.task,
        "inputs": [
            _row(name, tensor, exportable)
            for name, tensor in zip(exportable.input_names, exportable.example, strict=True)
        ],
        "outputs": _output_rows(exportable),
        "settings": dict(exportable.settings),
        "model_config": None if model_config is None else dict(model_config),
        "versions": versions(),
    }


def _row(name: str, tensor: Tensor, exportable: Exportable) -> dict[str, Any]:
    axes = exportable.dynamic.get(name, {})
    shape = [axes.get(axis, side) for axis, side in enumerate(tensor.shape)]
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}


def _output_rows(exportable: Exportable) -> list[dict[str, Any]]:
    results = exportable.reference(*exportable.example)
    return [
        {"name": name, "dtype": str(result.dtype).removeprefix("torch."), "rank": result.ndim}
        for name, result in zip(exportable.output_names, results, strict=True)
    ]
