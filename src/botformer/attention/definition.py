"""The definition: the slow, obvious implementation that every other backend is tested against.

Notation: B batch size, N heads, H x W map, D query and key width, Dv value width, i = (y, x) the position of the query,
j = (y', x') that of the key.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from botformer.attention.graph_capture import captured


def by_offset(table: Tensor) -> Tensor:
    """A table over offsets (2L-1, D) laid out by position: (L, L, D), entry [i, j] for query i and key j."""
    L = (table.shape[0] + 1) // 2
    i = torch.arange(L, device=table.device)
    return table[i[None, :] - i[:, None] + L - 1]


def logits_by_definition(q: Tensor, k: Tensor, rel_height: Tensor, rel_width: Tensor) -> Tensor:
    """q~[y,x] . (k[y',x'] + R_h[y'-y+H-1] + R_w[x'-x+W-1]) with q~ = q * D**-0.5: (B, N, H, W, H, W).

    The scale is applied once, before both terms (paper Fig. 4 and the authors' reference code).
    """
    q = q * q.shape[-1] ** -0.5
    content = torch.einsum("bnyxd,bnuvd->bnyxuv", q, k)
    position_height = torch.einsum("bnyxd,yud->bnyxu", q, by_offset(rel_height))
    position_width = torch.einsum("bnyxd,xvd->bnyxv", q, by_offset(rel_width))
    return content + position_height[..., :, None] + position_width[..., None, :]


def attention_by_definition(
    q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, padding_mask: Tensor | None = None
) -> Tensor:
    """softmax over all keys of the logits, times v: (B, N, H, W, Dv). Builds the (HW)^2 matrix."""
    logits = logits_by_definition(q, k, rel_height, rel_width)
    if padding_mask is not None:
        logits = logits.masked_fill(padding_mask[:, None, None, None], -torch.inf)
    weights = logits.flatten(-2).softmax(-1).unflatten(-1, logits.shape[-2:])
    if padding_mask is not None:  # every key is padding: 0 / 0 above
        weights = weights.masked_fill(padding_mask.flatten(1).all(1)[:, None, None, None, None, None], 0)
    return torch.einsum("bnyxuv,bnuvd->bnyxd", weights, v)


def pooled_attention_by_definition(
    q: Tensor, k: Tensor, v: Tensor, rel_height: Tensor, rel_width: Tensor, padding_mask: Tensor | None, pool: bool
) -> Tensor:
    """The same, averaged over cells where `pool` says so: (B, N, H, W, Dv) or (B, N, H', W', Dv)."""
    out = attention_by_definition(q, k, v, rel_height, rel_width, padding_mask)
    return average_cells(out) if pool else out


def average_cells(x: Tensor) -> Tensor:
    """Averages over cells of 2x2, at an odd edge over the positions inside: (B, N, H, W, D) -> (B, N, H', W', D)."""
    N = x.shape[1]
    maps = x.permute(0, 1, 4, 2, 3).flatten(1, 2)
    if captured():
        # The same: an edge that is repeated does not change its average, and no cell looks at the repeated line of an
        # even side. With `ceil_mode` torch.export asks for a proof about the size that its solver does not find.
        pooled = F.avg_pool2d(F.pad(maps, (0, 1, 0, 1), mode="replicate"), 2)
    else:
        pooled = F.avg_pool2d(maps, 2, ceil_mode=True)
    return pooled.unflatten(1, (N, -1)).permute(0, 1, 3, 4, 2)
