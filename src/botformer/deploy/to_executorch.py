"""ExecuTorch: one file for phones and small devices, computed by XNNPACK where it has the operator; one size."""

from pathlib import Path

from botformer.deploy.to_torch import traced
from botformer.exportable import Exportable


def write_executorch(exportable: Exportable, precision: str, file: Path) -> None:
    """Write `file` (.pte). Takes minutes."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(traced(exportable), partitioner=[XnnpackPartitioner()])
    file.write_bytes(lowered.to_executorch().buffer)
