"""Exported networks opened again: arrays in, arrays out, by name, whatever the format."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from botformer.deploy.exported_folder import CONFIG, check_files, read_config
from botformer.deploy.formats import FormatName, check_installed, find_format
from botformer.deploy.no_telemetry import import_onnxruntime
from botformer.deploy.openvino_buckets import Run, open_openvino
from botformer.errors import InputError


class Runtime:
    """An exported network (`open_exported`). `runtime(pixels=...)` takes and gives arrays by the names in `config`."""

    def __init__(self, config: Mapping[str, Any], run: Run) -> None:
        self.config, self._run = config, run
        self.inputs: list[dict[str, Any]] = config["inputs"]
        self.outputs: list[dict[str, Any]] = config["outputs"]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Every input by its name -> every output by its name.

        Args:
            inputs: arrays with the dtype and shape that `inputs` of config.json says, such as pixels (B, C, h, w)
                float32 in 0..1.

        Raises:
            InputError: a missing or an unknown input, another dtype or shape than config.json says.
        """
        expected = {row["name"]: row for row in self.inputs}
        if inputs.keys() != expected.keys():
            raise InputError(f"the inputs are {', '.join(expected)}; got {', '.join(inputs) or 'none'}")
        for name, array in inputs.items():
            _check(name, array, expected[name])
        found = self._run({name: np.ascontiguousarray(array) for name, array in inputs.items()})
        return {row["name"]: found[row["name"]] for row in self.outputs}


def open_exported(folder: str | Path, threads: int | None = None) -> Runtime:
    """Open a folder that `botformer export` or an `export_...` function wrote.

    Args:
        folder: with config.json and the model.
        threads: that a call may use; the runtime's own choice by default. PyTorch and ExecuTorch have one number for
            the whole process (`torch.set_num_threads`), and take none here.

    Raises:
        InputError: no such folder, a damaged file (its sha256 differs), or a runtime that is not installed.
    """
    folder = Path(folder)
    config = read_config(folder)
    if find_format(config["format"]).model_file not in config["files"]:
        raise InputError(f"{folder / CONFIG} does not list the model's file; export the network again")
    check_files(folder, config)
    return open_model(config, folder, threads)


def open_model(config: Mapping[str, Any], folder: Path, threads: int | None = None) -> Runtime:
    """As `open_exported`, of a folder whose config is known."""
    name: FormatName = config["format"]
    row = find_format(name)
    check_installed(name, row.to_run)
    return Runtime(config, _OPENERS[name](folder / row.model_file, config, threads))


def _open_torch(file: Path, config: Mapping[str, Any], threads: int | None) -> Run:
    import torch
    import torchvision  # noqa: F401  (operators of detectors)

    if threads is not None:
        raise InputError(
            "PyTorch has one number of threads for the whole process; call torch.set_num_threads and leave threads out"
        )
    if config["precision"] == "int8":
        import torchao.quantization.pt2e  # noqa: F401  # registers the operators that round
    graph: Any = torch.export.load(file).module()
    names = [row["name"] for row in config["inputs"]], [row["name"] for row in config["outputs"]]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            with torch.inference_mode():
                results = graph(*(torch.from_numpy(inputs[name]) for name in names[0]))
        except AssertionError as error:  # a guard on sizes that PyTorch put in
            raise InputError(f"the program does not take inputs of this size ({error}); make them larger") from error
        return {name: result.numpy() for name, result in zip(names[1], results, strict=True)}

    return run


def _open_onnx(file: Path, config: Mapping[str, Any], threads: int | None) -> Run:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [row["name"] for row in config["outputs"]]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        results: Any = session.run(names, dict(inputs))
        return dict(zip(names, results, strict=True))

    return run


def _open_executorch(file: Path, config: Mapping[str, Any], threads: int | None) -> Run:
    import torch
    from executorch.runtime import Runtime as Executor

    if threads is not None:
        raise InputError("ExecuTorch chooses its threads when it is built; leave threads out")
    method = Executor.get().load_program(file).load_method("forward")
    if method is None:
        raise InputError(f"{file} has no method 'forward'; export the network again")
    names = [row["name"] for row in config["inputs"]], [row["name"] for row in config["outputs"]]
    one_at_a_time = threading.Lock()

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with one_at_a_time:
            results = method.execute([torch.from_numpy(inputs[name]) for name in names[0]])
            # Copied: the next call writes into the same memory.
            return {name: result.numpy().copy() for name, result in zip(names[1], results, strict=True)}

    return run


_OPENERS: dict[FormatName, Callable[[Path, Mapping[str, Any], int | None], Run]] = {
    "torch": _open_torch,
    "onnx": _open_onnx,
    "openvino": open_openvino,
    "executorch": _open_executorch,
}


def _check(name: str, array: np.ndarray, row: Mapping[str, Any]) -> None:
    shape = row["shape"]
    fits = array.ndim == len(shape) and all(
        isinstance(side, str) or side == own for side, own in zip(shape, array.shape, strict=True)
    )
    if not fits or str(array.dtype) != row["dtype"]:
        expected = ", ".join(map(str, shape))
        raise InputError(f"{name} must be {row['dtype']} ({expected}), got {array.dtype} {tuple(array.shape)}")
