"""The attention operation as pure functions on tensors; no modules, no parameters."""

from botformer.attention.definition import average_cells, logits_by_definition
from botformer.attention.operation import relative_attention_2d
from botformer.attention.position_tables import TablePolicy, fit_table, resize_absolute_table, resize_table
from botformer.attention.sdpa import attention_of_query, dot_attention, relative_parts

__all__ = [
    "TablePolicy",
    "attention_of_query",
    "average_cells",
    "dot_attention",
    "fit_table",
    "logits_by_definition",
    "relative_attention_2d",
    "relative_parts",
    "resize_absolute_table",
    "resize_table",
]
