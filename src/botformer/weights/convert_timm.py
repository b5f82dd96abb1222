"""Convert timm's BoTNets to any input size: their attention replaced by botformer's, with the same weights."""

import logging
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botformer.attention import (
    TablePolicy,
    fit_table,
    logits_by_definition,
    relative_attention_2d,
    resize_table,
)

if TYPE_CHECKING:
    from timm.layers.bottleneck_attn import BottleneckAttn

logger = logging.getLogger(__name__)

for _function in ("relative_attention_2d", "resize_table"):  # one node each in a graph of torch.fx
    torch.fx.wrap(_function)


class ConvertedAttention(nn.Module):
    """timm's `BottleneckAttn` with the same parameters under the same names, computed by botformer's attention.

    (B, C, H, W) -> (B, C_out, H, W), or half of each side, rounded up, with pooling. Any H and W. O(HW (H + W)) memory,
    but in TorchScript (`torch.jit.script`), where the definition is computed with its (HW)^2 matrix, as in timm.
    """

    def __init__(self, timm_layer: "BottleneckAttn", tables: TablePolicy, backend: str) -> None:
        super().__init__()
        self.heads, self.backend = timm_layer.num_heads, backend
        self.tables: TablePolicy = tables
        self.by_offset = tables == "offset"
        self.widths = [timm_layer.dim_out_qk, timm_layer.dim_out_qk, timm_layer.dim_out_v]
        # By default timm scales q.k and not q.r; botformer scales both, so the tables are multiplied to compensate.
        self.table_scale = 1.0 if timm_layer.scale_pos_embed else timm_layer.dim_head_qk**0.5
        self.qkv, self.pos_embed = timm_layer.qkv, timm_layer.pos_embed
        # The same pool at even sizes; at odd sizes it keeps the edge, as the stride-2 shortcut does.
        self.pool = isinstance(timm_layer.pool, nn.AvgPool2d)
        self.register_load_state_dict_pre_hook(_adapt_state)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(x), self.widths, self.heads)
        H, W = x.shape[2], x.shape[3]
        height, width = self.pos_embed.height_rel * self.table_scale, self.pos_embed.width_rel * self.table_scale
        if torch.jit.is_scripting():  # pyright: ignore[reportPrivateImportUsage]
            height = fit_table(height, 2 * H - 1, self.by_offset, True).to(q.dtype)
            width = fit_table(width, 2 * W - 1, self.by_offset, True).to(q.dtype)
            weights = logits_by_definition(q, k, height, width).flatten(-2).softmax(-1).unflatten(-1, [H, W])
            scripted = torch.einsum("bnyxuv,bnuvd->bndyx", weights, v).flatten(1, 2)
            return F.avg_pool2d(scripted, 2, ceil_mode=True) if self.pool else scripted
        else:  # noqa: RET505  (TorchScript compiles what follows an `if` without `else`)
            height = resize_table(height, H, self.tables).to(q.dtype)
            width = resize_table(width, W, self.tables).to(q.dtype)
            out = relative_attention_2d(q, k, v, height, width, pool=self.pool, backend=self.backend)
            return out.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)


@torch.fx.wrap
def split_heads(projected: Tensor, widths: list[int], heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, sum of the widths, H, W) -> q, k, v (B, N, H, W, each width / N)."""
    q, k, v = projected.permute(0, 2, 3, 1).split(widths, 3)
    q, k, v = q.unflatten(3, [heads, -1]), k.unflatten(3, [heads, -1]), v.unflatten(3, [heads, -1])
    return q.permute(0, 3, 1, 2, 4), k.permute(0, 3, 1, 2, 4), v.permute(0, 3, 1, 2, 4)


def _adapt_state(module: ConvertedAttention, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before loading: tables of another image size are resized by the layer's policy."""
    for name, table in module.pos_embed.named_parameters():
        key = f"{prefix}pos_embed.{name}"
        loaded = state.get(key)
        if loaded is None or loaded.shape == table.shape or loaded.shape[1:] != table.shape[1:]:
            continue
        state[key] = resize_table(loaded, (len(table) + 1) // 2, module.tables)
        logger.info("%s: %d entries in the file, %d here; resized by %r", key, len(loaded), len(table), module.tables)


def convert_timm(model: nn.Module, tables: TablePolicy, backend: str) -> int:
    """Replace every `BottleneckAttn` of a timm model, in place; returns how many. Arguments as in `convert`."""
    from timm.layers.bottleneck_attn import BottleneckAttn

    layers = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, BottleneckAttn)
    ]
    for parent, name, layer in layers:
        setattr(parent, name, ConvertedAttention(layer, tables, backend).train(layer.training))
    if layers:
        logger.info("converted %d attention layers of timm's", len(layers))
    return len(layers)
