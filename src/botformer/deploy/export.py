"""A trained network -> a folder that runs elsewhere, once it was held against PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from botformer.deploy.check_graph import check_graph
from botformer.deploy.exported_folder import check_free, new_folder, write_config
from botformer.deploy.formats import FORMATS, FormatName, Precision, check_installed, find_format
from botformer.deploy.run_script import run_script
from botformer.deploy.runtimes import open_model
from botformer.deploy.support import check_supported
from botformer.deploy.task_config import task_config
from botformer.deploy.to_executorch import write_executorch
from botformer.deploy.to_onnx import write_onnx
from botformer.deploy.to_openvino import write_openvino
from botformer.deploy.to_torch import write_torch
from botformer.environment import versions
from botformer.errors import InputError
from botformer.exportable import Exportable, ExportsItself
from botformer.recipes.check import as_whole, height_and_width

OnProgress = Callable[[float], object]
RUN_SCRIPT = "run.py"


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
    """Write a `torch.export` program (model.pt2), which PyTorch runs without botformer, with config.json and run.py.

    It is compared with PyTorch first, at several sizes.

    Args:
        model: a classifier, backbone or detector of botformer, on any device, in any mode and dtype; a copy is exported
            in evaluation mode.
        folder: new, empty, or an earlier export, which is replaced.
        model_config: what `botformer.load` gave with the model: class names and how images are prepared.
        precision: what the graph computes in; "int8" is made of an exported network in float32 and of data, by
            `botformer export --precision int8`.
        size: (height, width) of the pixels, fixed; by default any, or the network's own where there must be one.
        batch: images per call, fixed; by default any, or 1 where there must be one.
        images: (C, h, w) floats in 0..1, on which the graph is compared too.
        on_progress: called with the fraction that is done.

    Returns:
        The folder.

    Raises:
        InputError: a network and a precision that do not go together, with the reason; a runtime that is not
            installed; a folder that holds something else; a graph that differs from PyTorch, with the figures. Nothing
            is left behind.
    """
    return export("torch", model, folder, model_config, precision, size, batch, images, on_progress)


def export_onnx(
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
    """Write an ONNX file (model.onnx), which ONNX Runtime and others run.

    Arguments as in `export_torch`; `images` are (C, h, w) floats in 0..1.

    Raises:
        InputError: as there.
    """
    return export("onnx", model, folder, model_config, precision, size, batch, images, on_progress)


def export_openvino(
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
    """Write OpenVINO's files (model.xml, model.bin), for Intel's and AMD's processors.

    Arguments as in `export_torch`; `images` are (C, h, w) floats in 0..1.

    Raises:
        InputError: as there.
    """
    return export("openvino", model, folder, model_config, precision, size, batch, images, on_progress)


def export_executorch(
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
    """Write an ExecuTorch program (model.pte), for phones; of one `size` and `batch`.

    Arguments as in `export_torch`; `images` are (C, h, w) floats in 0..1.

    Raises:
        InputError: as there.
    """
    return export("executorch", model, folder, model_config, precision, size, batch, images, on_progress)


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
    """As `export_torch`, in the format "torch", "onnx", "openvino" or "executorch"."""
    folder = Path(folder)
    if batch is not None and (as_whole(batch) or 0) < 1:
        raise InputError(f"batch must be whole and at least 1, or None for any, got {batch!r}")
    size = None if size is None else height_and_width("size", size)
    images = list(images)  # they are looked at more than once
    for image in images:
        if not isinstance(image, Tensor) or image.ndim != 3 or not image.is_floating_point():
            raise InputError("images must be tensors (C, h, w) of floats in 0..1")
    row = find_format(format_name)
    check_free(folder)
    check_installed(format_name, row.to_write + row.to_run)
    network = _unwrapped(model)
    if row.fixed_size:
        size, batch = size or _own_size(network, model_config), batch or 1
    exportable = network.exportable(size=size, batch=batch, images=images)
    check_supported(format_name, exportable.task, precision)
    if precision == "int8":
        raise InputError(
            "int8 needs data: export in float32 and give the folder to botformer.deploy.int8.export_int8, as "
            "botformer export --precision int8 --data DIR does"
        )
    with new_folder(folder) as unfinished:
        _WRITERS[format_name](exportable, precision, unfinished / row.model_file)
        on_progress(0.5)
        config = _config(exportable, format_name, precision, model_config)
        runtime = open_model(config, unfinished)
        config["checked"] = check_graph(exportable, runtime, precision, lambda done: on_progress(0.5 + done / 2))
        if exportable.example[0].shape[1] == 3:  # files are read as red, green and blue
            (unfinished / RUN_SCRIPT).write_text(run_script(config), encoding="utf-8")
        write_config(unfinished, config)
    return folder


_WRITERS: dict[FormatName, Callable[[Exportable, str, Path], None]] = {
    "torch": write_torch,
    "onnx": write_onnx,
    "openvino": write_openvino,
    "executorch": write_executorch,
}


def _unwrapped(model: nn.Module) -> ExportsItself:
    """The network within the wrappers of `torch.compile` and data parallelism."""
    while isinstance(wrapped := getattr(model, "_orig_mod", getattr(model, "module", None)), nn.Module):
        model = wrapped
    if not isinstance(model, ExportsItself):
        raise InputError(
            f"export takes a classifier, a backbone or a detector of botformer, got {type(model).__name__}; of a "
            "wrapper give what it wraps"
        )
    return model


def _own_size(network: ExportsItself, model_config: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """What images get in an evaluation, else what the position tables are made for; None of a fixed canvas."""
    if 2 not in next(iter(network.exportable(batch=1).dynamic.values()), {}):
        return None
    if model_config is not None:
        return model_config["images"]["size"], model_config["images"]["size"]
    height, width = network.exportable(batch=1).example[0].shape[2:]
    return height, width


def _config(
    exportable: Exportable, format_name: FormatName, precision: str, model_config: Mapping[str, Any] | None
) -> dict[str, Any]:
    row, results = FORMATS[format_name], exportable.reference(*exportable.example)
    inputs = zip(exportable.input_names, exportable.example, strict=True)
    first = exportable.dynamic.get(exportable.input_names[0], {})
    return {
        "format": format_name,
        "precision": precision,
        "task": exportable.task,
        "inputs": [_row(name, tensor, exportable.dynamic.get(name, {})) for name, tensor in inputs],
        "outputs": [
            _row(name, tensor, _output_axes(tensor, first))
            for name, tensor in zip(exportable.output_names, results, strict=True)
        ],
        **task_config(exportable, model_config),
        "settings": dict(exportable.settings),
        "model_config": None if model_config is None else dict(model_config),
        "versions": versions(more=row.to_write + row.to_run),
    }


def _row(name: str, tensor: Tensor, axes: Mapping[int, str | None]) -> dict[str, Any]:
    """A dynamic axis has its name in the shape, or null where its size follows from others."""
    shape = [axes.get(axis, side) for axis, side in enumerate(tensor.shape)]
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}


def _output_axes(tensor: Tensor, axes_of_pixels: Mapping[int, str]) -> dict[int, str | None]:
    """The batch comes first in every output; heights and widths of maps follow from those of the pixels."""
    batch: dict[int, str | None] = {0: axes_of_pixels[0]} if 0 in axes_of_pixels else {}
    return batch | dict.fromkeys(range(2, tensor.ndim) if 2 in axes_of_pixels else ())
