"""A finished graph held against PyTorch, in the runtime that will run it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from botformer.deploy.runtimes import Runtime
from botformer.errors import InputError
from botformer.exportable import Exportable

_TIMES = {"float32": 10, "float16": 2, "bfloat16": 2}
"""PyTorch's own rounding. In float32, where hardly anything differs, sums in another order may by more; in the others
every layer rounds, and what rounds twice as much loses something."""


def check_graph(
    exportable: Exportable,
    runtime: Runtime,
    precision: str,
    on_progress: Callable[[float], object] = lambda fraction: None,
) -> list[dict[str, Any]]:
    """Run the example and every probe in both; one record per call: the shapes, and by how much each output differs.

    Raises:
        InputError: a figure above its limit, or not finite, with the inputs' shapes.
    """
    records = []
    calls = [exportable.example, *exportable.probes]
    for number, inputs in enumerate(calls):
        with torch.no_grad():
            expected = _named(exportable, exportable.reference(*inputs))
        shapes = {name: list(tensor.shape) for name, tensor in zip(exportable.input_names, inputs, strict=True)}
        found = runtime(**{n: tensor.numpy() for n, tensor in zip(exportable.input_names, inputs, strict=True)})
        _check_shapes(expected, found, shapes)
        differences = exportable.differences(expected, found)
        allowed = _allowed(exportable, precision, inputs, expected)
        wrong = {name: value for name, value in differences.items() if not value <= allowed[name]}
        if wrong:
            figures = ", ".join(f"{name} {value:.3g} (limit {allowed[name]:.3g})" for name, value in wrong.items())
            raise InputError(
                f"the exported graph does not compute what the network computes: at {_words(shapes)} it differs by "
                f"{figures}. Nothing was written; use another format or precision"
            )
        records.append({"inputs": shapes, "differences": differences})
        on_progress((number + 1) / len(calls))
    return records


def _allowed(
    exportable: Exportable, precision: str, inputs: tuple[Tensor, ...], expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """The limits, and some times what PyTorch's own rounding does to this input."""
    limits, rounded = exportable.limits[precision], exportable.rounded.get(precision)
    if rounded is None:
        return dict(limits)
    with torch.no_grad():
        own = exportable.differences(expected, _named(exportable, rounded(*inputs)))
    return {name: limit + _TIMES[precision] * own[name] for name, limit in limits.items()}


def _named(exportable: Exportable, results: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    return {name: result.numpy() for name, result in zip(exportable.output_names, results, strict=True)}


def _check_shapes(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], inputs: Any) -> None:
    for name, values in expected.items():
        if values.shape != found[name].shape:
            raise InputError(
                f"the exported graph gives {name} of shape {found[name].shape} at {_words(inputs)}, the network "
                f"{values.shape}. Nothing was written; use another format"
            )


def _words(shapes: Mapping[str, list[int]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
