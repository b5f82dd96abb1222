"""Relative attention through FlashAttention-3, where that package is installed: the one-hot form with a narrow v.

PyTorch's fused kernels want v as wide as q, so the one-hot columns are paid for twice (`sdpa`). FlashAttention-3 takes
queries and keys of up to 192 with values of up to 128: a head of 128 on a map with H + W <= 64 fits as it is.
"""

import importlib.util
from importlib import import_module
from typing import Any

from torch import Tensor

from botformer.attention.sdpa import joined, padded_to, relative_parts, sdpa_attention, without_keyless

WIDEST, WIDEST_VALUE = 192, 128
# Kernels of unequal widths exist between these; narrower heads run with v as wide as q.
_EQUAL_UP_TO = 128


def find_package() -> str:
    """The module with `flash_attn_func`; "" where the package is not installed."""
    if importlib.util.find_spec("flash_attn_interface"):
        return "flash_attn_interface"
    return "flash_attn_3.flash_attn_interface" if importlib.util.find_spec("flash_attn_3") else ""


def flash_attention_3(
    q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, padding_mask: Tensor | None = None
) -> Tensor:
    """Exact relative attention in O(HW (H + W)) memory: (B, N, H, W, Dv). Arguments as in `relative_attention_2d`.

    A mask takes a column more. Where that is the 193rd, PyTorch's kernel computes the same form.
    """
    H, W, Dv = v.shape[-3:]
    if padding_mask is not None and q.shape[-1] + H + W >= WIDEST:
        return sdpa_attention(q, k, v, rel_height, rel_width, padding_mask)
    query, key = joined(*relative_parts(q, k, rel_height, rel_width), v, padding_mask)
    width = -(-max(query.shape[-1], Dv) // 8) * 8
    value_width = WIDEST_VALUE if width > _EQUAL_UP_TO else width
    attend: Any = import_module(find_package()).flash_attn_func
    # (B, H*W, N, width), the layout of the package
    operands = padded_to(width, query), padded_to(width, key), padded_to(value_width, v.flatten(2, 3))
    result = attend(*(x.transpose(1, 2).contiguous() for x in operands), softmax_scale=1.0)
    out = result[0] if isinstance(result, tuple) else result  # earlier versions return the normalizer, too
    return without_keyless(out[..., :Dv].transpose(1, 2).unflatten(2, (H, W)), padding_mask)
