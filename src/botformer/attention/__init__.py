"""The operation: pure functions on tensors. Knows no module."""

from botformer.attention.augmented import attention_of_query, dot_attention, relative_parts
from botformer.attention.operation import average_cells, relative_attention_2d
from botformer.attention.tables import TablePolicy, fit_absolute_table, fit_table

__all__ = [
    "TablePolicy",
    "attention_of_query",
    "average_cells",
    "dot_attention",
    "fit_absolute_table",
    "fit_table",
    "relative_attention_2d",
    "relative_parts",
]
