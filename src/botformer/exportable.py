"""What a network says of itself to be exported. Networks answer `exportable`; `botformer.deploy` writes the files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

ExportTask = Literal["classification", "features", "detection"]
Outputs = Mapping[str, "np.ndarray"]
"""Arrays by the names of the outputs."""


@dataclass(frozen=True)
class Exportable:
    """A network as a graph: what goes in, what comes out, and how to tell whether a graph computes the same."""

    task: ExportTask
    """"classification", "features" or "detection"."""
    module: "nn.Module"
    """In evaluation mode, float32, on the CPU, of operators that other runtimes have. Called with the inputs in order,
    it gives a tuple of tensors in the order of `output_names`."""
    reference: "Callable[..., tuple[Tensor, ...]]"
    """The same by the network as it was given: what graphs are held against."""
    example: "tuple[Tensor, ...]"
    """Inputs to trace with, such as pixels (B, C, h, w) in 0..1. A dynamic axis has a size of at least 2 here."""
    input_names: tuple[str, ...]
    """Of what `module` takes, in order."""
    output_names: tuple[str, ...]
    """Of what `module` gives, in order."""
    dynamic: Mapping[str, Mapping[int, str]]
    """Input -> axis -> its name, such as "height"; other axes have the size that they have in `example`."""
    probes: "Sequence[tuple[Tensor, ...]]"
    """Further inputs, such as pixels (B, C, h, w) of other sizes and given images, on which a finished graph is
    compared with `reference`."""
    differences: Callable[[Outputs, Outputs], dict[str, float]]
    """(expected, found) -> figures by name, each 0 where they are the same."""
    limits: Mapping[str, Mapping[str, float]]
    """Precision -> figure -> the most that a graph may differ by."""
    onnx_module: "nn.Module | None" = None
    """In place of `module` where the graph becomes ONNX, if that has an operator which PyTorch has no word for."""
    onnx_operators: Callable[[], Mapping[Any, Any]] = dict
    """How its own operators are written: for `torch.onnx.export(custom_translation_table=...)`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What else whoever runs the graph must know, as JSON: config.json has it under "settings"."""
    rounded: "Mapping[str, Callable[..., tuple[Tensor, ...]]]" = field(default_factory=dict)
    """Precision -> PyTorch's network in it, where `reference` is in float64: a graph may have some times the distance
    of that from `reference`, beside the limit. Attention that hangs on a hair's breadth turns rounding into more than
    any fixed limit."""


@runtime_checkable
class ExportsItself(Protocol):
    """A network that can be exported."""

    def exportable(
        self, *, size: tuple[int, int] | None = None, batch: int | None = None, images: "Sequence[Tensor]" = ()
    ) -> Exportable:
        """A copy of the network as a graph; the network itself is not changed.

        Args:
            size: height and width of the pixels; None is any, or, where there must be one, the network's own.
            batch: images per call; None is any, or, where there must be one, the network's own choice.
            images: (C, h, w) floats in 0..1, to compare the finished graph on too.
        """
        ...
