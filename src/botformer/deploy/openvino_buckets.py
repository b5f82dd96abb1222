"""OpenVINO at the speed of fixed shapes, whatever comes: shapes that come again are compiled for."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from botformer.deploy.no_telemetry import import_openvino

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Shapes = tuple[tuple[int, ...], ...]
KEPT = 4
"""Shapes whose compiled graphs are kept, the last ones used: each has its own copy of the weights."""
HINTS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": "bf16"}
"""Precision -> what OpenVINO computes floats in, as far as the processor has it. Of int8: what is not quantised."""


def open_openvino(file: Path, config: Mapping[str, Any], threads: int | None) -> Run:
    """Open an .xml file. Thread-safe."""
    return _Buckets(file, config, threads).run


class _Buckets:
    """The first call with a shape runs the graph for any shape; from the second on it has a graph of its own."""

    def __init__(self, file: Path, config: Mapping[str, Any], threads: int | None) -> None:
        self._settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[config["precision"]]}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._model = _core().read_model(file)
        self._names = [row["name"] for row in config["inputs"]], [row["name"] for row in config["outputs"]]
        self._any = _Compiled(_core().compile_model(self._model, "CPU", self._settings))
        # Not `model.is_dynamic()`, which is true of a detector, too, for what lies between suppression and top k.
        self._fixed = all(row.get_partial_shape().is_static for row in self._model.inputs)
        self._seen: set[Shapes] = set()
        self._own: OrderedDict[Shapes, _Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        compiled = self._any if self._fixed else self._for(tuple(inputs[name].shape for name in self._names[0]))
        return compiled.run(inputs, self._names[1])

    def _for(self, shapes: Shapes) -> "_Compiled":
        with self._lock:
            if shapes in self._own:
                self._own.move_to_end(shapes)
                return self._own[shapes]
            if shapes not in self._seen:
                self._seen.add(shapes)
                return self._any
            model = self._model.clone()
            model.reshape(dict(zip(self._names[0], map(list, shapes), strict=True)))
            self._own[shapes] = _Compiled(_core().compile_model(model, "CPU", self._settings))
            if len(self._own) > KEPT:
                oldest, _ = self._own.popitem(last=False)
                self._seen.discard(oldest)
            return self._own[shapes]


@cache
def _core() -> Any:
    """One for the process, for ever.

    OpenVINO 2026.4 gives the thread that opens a CPU device a stack for signals, and takes it back with the device. Of
    two devices that end in the order in which they began, the second puts back the first one's stack, which is freed:
    the next signal, such as the end of a child process, ends the program.
    """
    return import_openvino().Core()


class _Compiled:
    """A compiled graph and the requests that threads run it by, each one at a time."""

    def __init__(self, compiled: Any) -> None:
        self._compiled, self._free = compiled, []

    def run(self, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
        try:
            request = self._free.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        results = request.infer(dict(inputs), share_inputs=False)
        found = {name: np.array(results[name]) for name in names}
        self._free.append(request)
        return found
