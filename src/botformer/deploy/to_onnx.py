"""ONNX: the traced program in the operators of the standard, in one file."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from botformer.deploy.to_torch import traced
from botformer.exportable import Exportable

if TYPE_CHECKING:
    import onnx

_LEAST_COMPRESSED = 256
"""Numbers in a tensor that is worth storing in two bytes each."""


def write_onnx(exportable: Exportable, precision: str, file: Path) -> None:
    """Write `file` (.onnx). float16: weights are stored in two bytes and cast when the file is opened."""
    import onnx

    program = torch.onnx.export(
        traced(exportable, exportable.onnx_module),
        dynamo=True,
        custom_translation_table=dict(exportable.onnx_operators()),
        verbose=False,
        input_names=list(exportable.input_names),
        output_names=list(exportable.output_names),
    )
    assert program is not None
    program.save(file, external_data=False)
    model = onnx.load(file)
    _name_axes(model, exportable)
    if precision == "float16":
        _store_in_float16(model)
    for part in [*model.graph.node, *model.graph.value_info, *model.graph.initializer]:
        part.ClearField("metadata_props")  # of this machine: names of folders
    onnx.save(model, file)


def _name_axes(model: "onnx.ModelProto", exportable: Exportable) -> None:
    """ "batch" instead of "s77", in every shape that mentions it."""
    names = {}
    for value in model.graph.input:
        for axis, name in exportable.dynamic.get(value.name, {}).items():
            symbol = value.type.tensor_type.shape.dim[axis].dim_param
            if symbol:
                names[symbol] = name
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\bs\d+\b", lambda found: names.get(found[0], found[0]), dim.dim_param)


def _store_in_float16(model: "onnx.ModelProto") -> None:
    """Large float32 weights become float16 and a cast; a runtime casts them once, when it opens the file."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts: list[Any] = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if weight.data_type != TensorProto.FLOAT or values.size < _LEAST_COMPRESSED:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.float16"))
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
