"""Attention of other projects with our weights, and what else our attention is compared with.

Notation: B batch, N heads, H x W map, D head width, C = N D channels.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.attention import relative_attention_2d, relative_parts

LUCIDRAINS_MISSING = (
    ""
    if importlib.util.find_spec("bottleneck_transformer_pytorch")
    else "bottleneck-transformer-pytorch is not installed"
)


class OurAttention(nn.Module):
    """One of our backends: projected map (B, 3C, H, W), channels_last -> (B, C, H, W)."""

    def __init__(self, rel_height: Tensor, rel_width: Tensor, heads: int, backend: str) -> None:
        super().__init__()
        self.rel_height, self.rel_width = nn.Parameter(rel_height.clone()), nn.Parameter(rel_width.clone())
        self.heads, self.backend = heads, backend

    def forward(self, projected: Tensor) -> Tensor:
        q, k, v = _heads_of(projected, self.heads)
        return _map_of(relative_attention_2d(q, k, v, self.rel_height, self.rel_width, backend=self.backend))


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, torch.is_grad_enabled())[0]


# By name; "": the one that PyTorch chooses. Called directly, as `sdpa_kernel` switches kernels for the whole process.
KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "": F.scaled_dot_product_attention,
    "flash": _flash,
    "cuDNN": _cudnn,
}


class AttentionWithoutPosition(nn.Module):
    """PyTorch's fused attention on the same map, without positions: the lower bound of the cost."""

    def __init__(self, heads: int, kernel: str = "") -> None:
        super().__init__()
        self.heads, self.kernel = heads, KERNELS[kernel]

    def forward(self, projected: Tensor) -> Tensor:
        q, k, v = (part.flatten(2, 3) for part in _heads_of(projected, self.heads))
        return _map_of(self.kernel(q, k, v).unflatten(2, tuple(projected.shape[2:])))


class FlexAttention(nn.Module):
    """The same operation written with PyTorch's FlexAttention: the position terms in a compiled `score_mod`."""

    def __init__(self, rel_height: Tensor, rel_width: Tensor, heads: int) -> None:
        super().__init__()
        from torch.nn.attention.flex_attention import flex_attention

        self.rel_height, self.rel_width = nn.Parameter(rel_height.clone()), nn.Parameter(rel_width.clone())
        self.heads = heads
        self.attention: Any = torch.compile(flex_attention, dynamic=False)

    def forward(self, projected: Tensor) -> Tensor:
        W = projected.shape[3]
        q, k, v = _heads_of(projected, self.heads)
        (_, row_terms, column_terms), _ = relative_parts(q, k, self.rel_height, self.rel_width)
        rows, columns = row_terms.flatten(2, 3), column_terms.flatten(2, 3)  # (B, N, HW, H), (B, N, HW, W)

        def with_position(score: Tensor, b: Tensor, n: Tensor, i: Tensor, j: Tensor) -> Tensor:
            return score + rows[b, n, i, j // W] + columns[b, n, i, j % W]

        out = self.attention(*(part.flatten(2, 3) for part in (q, k, v)), score_mod=with_position)
        return _map_of(out.unflatten(2, tuple(projected.shape[2:])))


def timm_attention(rel_height: Tensor, rel_width: Tensor, heads: int, qkv: nn.Module | None = None) -> nn.Module:
    """timm's `BottleneckAttn` with these position tables; it scales positions as the authors do.

    Args:
        rel_height: (2H-1, D).
        rel_width: (2W-1, D).
        qkv: the projection (B, C, H, W) -> (B, 3C, H, W). None: the layer is given a projected map (B, 3C, H, W).
    """
    from timm.layers.bottleneck_attn import BottleneckAttn

    (H, W), D = _map_size(rel_height, rel_width), rel_height.shape[1]
    peer: Any = BottleneckAttn(heads * D, feat_size=(H, W), num_heads=heads, dim_head=D, scale_pos_embed=True)
    peer.qkv = qkv or nn.Identity()
    peer.pos_embed.height_rel = nn.Parameter(rel_height.clone())
    peer.pos_embed.width_rel = nn.Parameter(rel_width.clone())
    return peer


def lucidrains_attention(rel_height: Tensor, rel_width: Tensor, heads: int, qkv: nn.Module | None = None) -> nn.Module:
    """The `Attention` of bottleneck-transformer-pytorch; arguments as `timm_attention`."""
    from bottleneck_transformer_pytorch.bottleneck_transformer_pytorch import Attention

    (H, W), D = _map_size(rel_height, rel_width), rel_height.shape[1]
    peer: Any = Attention(dim=heads * D, fmap_size=(H, W), heads=heads, dim_head=D, rel_pos_emb=True)
    peer.to_qkv = qkv or nn.Identity()
    peer.pos_emb.rel_height = nn.Parameter(rel_height.clone())
    peer.pos_emb.rel_width = nn.Parameter(rel_width.clone())
    return peer


def _map_size(rel_height: Tensor, rel_width: Tensor) -> tuple[int, int]:
    return (len(rel_height) + 1) // 2, (len(rel_width) + 1) // 2


def _heads_of(projected: Tensor, heads: int) -> Tensor:
    """(B, 3C, H, W) -> (3, B, N, H, W, D), views where the map is channels_last."""
    channels = projected.shape[1]
    parts = projected.permute(0, 2, 3, 1).unflatten(3, (3, heads, channels // (3 * heads)))
    return parts.permute(3, 0, 4, 1, 2, 5)


def _map_of(out: Tensor) -> Tensor:
    """(B, N, H, W, D) -> (B, C, H, W)."""
    return out.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
