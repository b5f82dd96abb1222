"""torch.export: the program that the other formats are made of, and a format of its own (.pt2)."""

from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from botformer.exportable import Exportable


def traced(exportable: Exportable) -> ExportedProgram:
    """The network as a program of PyTorch's operators, for any size of its dynamic axes."""
    dynamic = tuple(
        dict.fromkeys(exportable.dynamic.get(name, {}), Dim.DYNAMIC) or None for name in exportable.input_names
    )
    with torch.no_grad():
        return torch.export.export(exportable.module, exportable.example, dynamic_shapes=dynamic)


def write_torch(exportable: Exportable, precision: str, file: Path) -> None:
    """Write `file` (.pt2)."""
    torch.export.save(traced(exportable), file)
