"""torch.export: the program that the other formats are made of, and a format of its own (.pt2)."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from botformer.exportable import Exportable


def write_torch(exportable: Exportable, precision: str, file: Path) -> None:
    """Write `file` (.pt2). bfloat16: the network computes in it, and its results are float32 again."""
    torch.export.save(traced(exportable, in_bfloat16=precision == "bfloat16"), file)


def traced(exportable: Exportable, module: nn.Module | None = None, in_bfloat16: bool = False) -> ExportedProgram:
    """The network, or a module in its place, as a program of PyTorch's operators, for any size of its dynamic axes."""
    axes = [dict.fromkeys(exportable.dynamic.get(name, {}), Dim.DYNAMIC) or None for name in exportable.input_names]
    module, dynamic = module or exportable.module, tuple(axes)
    if in_bfloat16:
        module, dynamic = _InBfloat16(module), (tuple(axes),)  # one argument, which is a tuple
    with torch.no_grad():
        program = torch.export.export(module, exportable.example, dynamic_shapes=dynamic)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # of this machine: names of folders
    return program


class _InBfloat16(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).bfloat16()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        results = self.module(*inputs)  # which networks round by themselves, and detectors where no coordinate is lost
        return tuple(result.float() if result.is_floating_point() else result for result in results)
