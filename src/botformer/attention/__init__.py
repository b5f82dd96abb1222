"""The attention operation as pure functions on tensors; no modules, no parameters."""

from botformer.attention.definition import average_cells
from botformer.attention.operation import relative_attention_2d
from botformer.attention.position_tables import TablePolicy, resize_absolute_table, resize_table
from botformer.attention.sdpa import attention_of_query, dot_attention, relative_parts

__all__ = [
    "TablePolicy",
    "attention_of_query",
    "average_cells",
    "dot_attention",
    "relative_attention_2d",
    "relative_parts",
    "resize_absolute_table",
    "resize_table",
]
